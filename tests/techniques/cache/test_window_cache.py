"""The sliding window: nothing changes before it is full, and a band is left of attention afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, GPT2Config, GPT2LMHeadModel

from backend.recipe.switches.cache import WindowCache
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]
W = 12


@torch.inference_mode()
def decode(subject: Subject, cache: Cache, tokens: int = 64) -> Tensor:
    """Logits (T, V), one token a call."""
    ids = torch.tensor([subject.sample_ids[:tokens]])
    steps = [subject.model(input_ids=ids[:, i : i + 1], cache=cache, use_cache=True) for i in range(tokens)]
    return torch.cat([step.logits[0] for step in steps])


def window_cache(subject: Subject, window: int = W) -> Cache:
    apply_switch(subject, WindowCache(window=window))
    assert subject.plan.make_cache
    return subject.plan.make_cache(64)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_unchanged_until_the_window_is_full(any_subject: Subject, kernel: str) -> None:
    any_subject.model.set_attn_implementation(kernel)
    dynamic = decode(any_subject, DynamicCache(config=any_subject.model.config))
    ours = decode(any_subject, window_cache(any_subject))
    torch.testing.assert_close(ours[:W], dynamic[:W], atol=1e-4, rtol=1e-4)
    assert (ours[W + 1 :] - dynamic[W + 1 :]).abs().max() > 1e-2


def test_length_stays_at_the_window(any_subject: Subject) -> None:
    cache = window_cache(any_subject)
    for tokens in (5, 12, 13, 40):
        cache.reset()
        decode(any_subject, cache, tokens)
        assert {layer.keys.shape[2] for layer in cache.layers} == {min(tokens, W)}
        assert cache.get_seq_length() == tokens  # positions stay absolute


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", ["llama", "gqa"])
def test_equals_a_banded_mask(build: Build, shape: str, kernel: str) -> None:
    subject = build(shape)  # decoded one by one, every layer's keys come from banded states, as under the mask
    subject.model.set_attn_implementation(kernel)
    ids, places = torch.tensor([subject.sample_ids]), torch.arange(64)
    distance = places[:, None] - places[None, :]
    band = (distance >= 0) & (distance < W)
    mask = torch.zeros(64, 64).masked_fill(~band, torch.finfo(torch.float32).min)[None, None]
    with torch.inference_mode():
        expected = subject.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
    torch.testing.assert_close(decode(subject, window_cache(subject)), expected, atol=1e-4, rtol=1e-4)


def test_a_long_prompt_is_read_in_full_and_then_forgotten(
    any_subject: Subject, logits: Callable[[Subject], Tensor]
) -> None:
    cache, ids = window_cache(any_subject), torch.tensor([any_subject.sample_ids])
    with torch.inference_mode():
        prompt = any_subject.model(input_ids=ids, cache=cache, use_cache=True).logits[0]
    torch.testing.assert_close(prompt, logits(any_subject), atol=1e-4, rtol=1e-4)
    assert {layer.keys.shape[2] for layer in cache.layers} == {W}
    held = sum(layer.keys.untyped_storage().nbytes() for layer in cache.layers)
    assert held == sum(layer.keys.nbytes for layer in cache.layers)  # no long prompt kept alive behind a slice


def test_a_second_call_of_several_tokens_sees_what_was_kept(tiny_llama: Subject) -> None:
    whole, parts = window_cache(tiny_llama, 40), window_cache(tiny_llama, 40)
    ids = torch.tensor([tiny_llama.sample_ids[:30]])
    with torch.inference_mode():
        expected = tiny_llama.model(input_ids=ids, cache=whole, use_cache=True).logits[0, 20:]
        tiny_llama.model(input_ids=ids[:, :20], cache=parts, use_cache=True)
        got = tiny_llama.model(input_ids=ids[:, 20:], cache=parts, use_cache=True).logits[0]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_gemmas_own_windows_are_never_widened(tiny_gemma: Subject) -> None:
    dynamic = decode(tiny_gemma, DynamicCache(config=tiny_gemma.model.config))
    cache = window_cache(tiny_gemma, 40)
    ours = decode(tiny_gemma, cache)
    torch.testing.assert_close(ours[:40], dynamic[:40], atol=1e-4, rtol=1e-4)
    assert [layer.keys.shape[2] for layer in cache.layers] == [16, 16, 40]


def test_cropping_is_possible_only_before_it_is_full(tiny_llama: Subject) -> None:
    cache = window_cache(tiny_llama)
    decode(tiny_llama, cache, 10)
    cache.crop(-4)
    assert cache.get_seq_length() == 6
    decode(tiny_llama, cache, 10)
    with pytest.raises(RuntimeError, match="cannot come back"):
        cache.crop(-1)


def test_receipt_fills_a_real_cache(any_subject: Subject) -> None:
    assert not read_back(any_subject, WindowCache(window=W)).took_effect
    apply_switch(any_subject, WindowCache(window=W))
    effect = read_back(any_subject, WindowCache(window=W))
    assert effect.took_effect
    assert effect.facts["window"] == W


def test_works_on_models_of_another_build() -> None:
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=64, n_positions=64)).eval()
    subject = Subject(model, None, facts=None, device=torch.device("cpu"), sample_ids=list(range(30)))  # type: ignore[arg-type]
    cache = window_cache(subject)
    decode(subject, cache, 30)
    assert {layer.keys.shape[2] for layer in cache.layers} == {W}
