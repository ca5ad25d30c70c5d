"""Attention sinks: the first tokens stay, and stand right before the last ones, as if nothing had been between."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, Cache, DynamicCache, GPT2Config, GPT2LMHeadModel

from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switches.cache import WindowCache
from backend.techniques.base import Subject, cache_bytes
from backend.techniques.cache.turning import Turning, half_turned
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]
W, S = 12, 3
THETA = 10_000.0


@torch.inference_mode()
def decode(subject: Subject, cache: Cache, tokens: int = 64, prompt: int = 0) -> Tensor:
    """Logits (T - prompt, V) of one token a call after a prompt in one."""
    ids = torch.tensor([subject.sample_ids[:tokens]])
    if prompt:
        subject.model(input_ids=ids[:, :prompt], cache=cache, use_cache=True)
    steps = [subject.model(input_ids=ids[:, i : i + 1], cache=cache, use_cache=True) for i in range(prompt, tokens)]
    return torch.cat([step.logits[0] for step in steps])


def sink_cache(subject: Subject, window: int = W, sinks: int = S) -> Cache:
    apply_switch(subject, WindowCache(window=window, sinks=sinks))
    assert subject.plan.make_cache
    return subject.plan.make_cache(64)


def turned(keys: Tensor, positions: int) -> Tensor:
    """Keys (..., D) so many positions on, pair by pair as complex numbers."""
    size = keys.shape[-1] // 2
    angles = positions * THETA ** (-torch.arange(size, dtype=torch.float64) / size)
    pairs = torch.complex(keys[..., :size].double(), keys[..., size:].double())
    found = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([found.real, found.imag], -1).to(keys.dtype)


def attend_slowly(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float = 1.0, **_: Any
) -> tuple[Tensor, None]:
    """Every token on its own: over all before it at first, then over the sinks, moved up, and the last tokens."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1)[0], value.repeat_interleave(groups, 1)[0]  # (H, T, D)
    rows = []
    for place in range(query.shape[2]):
        seen, values = key[:, : place + 1], value[:, : place + 1]
        if place >= W:
            recent = slice(place - (W - S) + 1, place + 1)
            seen = torch.cat([turned(key[:, :S], place - W + 1), key[:, recent]], 1)
            values = torch.cat([value[:, :S], value[:, recent]], 1)
        scores = (query[0, :, place, None] @ seen.transpose(1, 2) * scaling).softmax(-1)  # (H, 1, K)
        rows.append((scores @ values)[:, 0])
    return torch.stack(rows)[None], None


AttentionInterface.register("sinks_slowly", attend_slowly)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", ["llama", "gqa"])
def test_equals_a_slow_reference(build: Build, shape: str, kernel: str) -> None:
    subject, ids = build(shape), torch.tensor([build(shape).sample_ids])
    subject.model.config._attn_implementation = "sinks_slowly"
    with torch.inference_mode():
        expected = subject.model(input_ids=ids, use_cache=False).logits[0]
    subject.model.set_attn_implementation(kernel)
    torch.testing.assert_close(decode(subject, sink_cache(subject)), expected, atol=1e-4, rtol=1e-4)


def test_one_layer_reads_what_is_kept_as_a_text_of_its_own(build: Build) -> None:
    """Positions within the cache: the kept tokens with nothing between them, from position 0 on."""
    subject = build("llama", num_hidden_layers=1)
    ours, ids = decode(subject, sink_cache(subject)), subject.sample_ids
    for place in (W, 30, 63):
        kept = torch.tensor([ids[:S] + ids[place - (W - S) + 1 : place + 1]])
        with torch.inference_mode():
            expected = subject.model(input_ids=kept, use_cache=False).logits[0, -1]
        torch.testing.assert_close(ours[place], expected, atol=1e-4, rtol=1e-4)


def test_a_long_prompt_is_read_in_full_and_its_first_tokens_stay(
    any_subject: Subject, logits: Callable[[Subject], Tensor]
) -> None:
    cache, ids = sink_cache(any_subject), torch.tensor([any_subject.sample_ids])
    with torch.inference_mode():
        prompt = any_subject.model(input_ids=ids, cache=cache, use_cache=True).logits[0]
    torch.testing.assert_close(prompt, logits(any_subject), atol=1e-4, rtol=1e-4)
    plain: Any = DynamicCache(config=any_subject.model.config)
    with torch.inference_mode():
        any_subject.model(input_ids=ids, cache=plain, use_cache=True)
    ours: Any = cache.layers[-1]  # a layer that does not slide by itself
    kept = [*range(S), *range(64 - (W - S), 64)]
    torch.testing.assert_close(ours.keys, plain.layers[-1].keys[:, :, kept])
    assert {layer.keys.shape[2] for layer in cache.layers} == {W}


def test_after_a_prompt_one_layer_goes_on_as_if_it_had_been_short(build: Build) -> None:
    subject, ids = build("gqa", num_hidden_layers=1), build("gqa").sample_ids
    ours = decode(subject, sink_cache(subject), prompt=40)
    kept = torch.tensor([ids[:S] + ids[41 - (W - S) : 41]])
    with torch.inference_mode():
        expected = subject.model(input_ids=kept, use_cache=False).logits[0, -1]
    torch.testing.assert_close(ours[0], expected, atol=1e-4, rtol=1e-4)


def test_unchanged_until_the_window_is_full_and_other_than_a_plain_one_after(tiny_llama: Subject) -> None:
    dynamic = decode(tiny_llama, DynamicCache(config=tiny_llama.model.config))
    ours, plain = decode(tiny_llama, sink_cache(tiny_llama)), decode(tiny_llama, sink_cache(tiny_llama, sinks=0))
    torch.testing.assert_close(ours[:W], dynamic[:W], atol=1e-4, rtol=1e-4)
    assert (ours[W + 1 :] - plain[W + 1 :]).abs().max() > 1e-2


def test_gemmas_own_sliding_layers_keep_no_sinks(tiny_gemma: Subject) -> None:
    cache = sink_cache(tiny_gemma, 40, 4)
    decode(tiny_gemma, cache)
    assert [layer.keys.shape[2] for layer in cache.layers] == [16, 16, 40]
    assert [type(layer).__name__ for layer in cache.layers] == ["WindowLayer", "WindowLayer", "SinkLayer"]
    effect = read_back(tiny_gemma, WindowCache(window=40, sinks=4))
    assert effect.took_effect
    assert (effect.facts["sinks"], effect.facts["sink_layers"], effect.facts["smallest_window"]) == (4, 1, 16)


@pytest.mark.parametrize(("window", "sinks"), [(12, 1), (12, 11), (4, 3)])
def test_receipt_counts_the_sinks_in_a_live_cache(tiny_llama: Subject, window: int, sinks: int) -> None:
    asked = WindowCache(window=window, sinks=sinks)
    apply_switch(tiny_llama, WindowCache(window=window))
    assert not read_back(tiny_llama, asked).took_effect
    apply_switch(tiny_llama, asked)
    effect = read_back(tiny_llama, asked)
    assert effect.took_effect
    assert effect.summary.startswith(f"the first {sinks} and the last {window - sinks} tokens kept")
    assert decode(tiny_llama, sink_cache(tiny_llama, window, sinks), 30).isfinite().all()


def test_cropping_resetting_and_rows(tiny_llama: Subject) -> None:
    cache = sink_cache(tiny_llama)
    decode(tiny_llama, cache, 10)
    cache.crop(-8)
    expected = decode(tiny_llama, sink_cache(tiny_llama), 40)
    cache.crop(-2)
    torch.testing.assert_close(decode(tiny_llama, cache, 40), expected)
    with pytest.raises(RuntimeError, match="cannot come back"):
        cache.crop(-1)
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([1]))
    ids = torch.tensor([[tiny_llama.sample_ids[40]]])
    with torch.inference_mode():
        row = tiny_llama.model(input_ids=ids, cache=cache, use_cache=True).logits[0, -1]
    torch.testing.assert_close(row, decode(tiny_llama, sink_cache(tiny_llama), 41)[-1])
    cache.reset()
    torch.testing.assert_close(decode(tiny_llama, cache, 40), expected)


def test_bytes_are_forecast(tiny_llama: Subject) -> None:
    cache, asked = sink_cache(tiny_llama), WindowCache(window=W, sinks=S)
    decode(tiny_llama, cache, 40)
    assert cache_bytes(cache) == 3 * asked.cached(tiny_llama.facts, 40, 4)


def test_turning_is_by_the_models_own_embeddings(tiny_llama: Subject) -> None:
    keys = torch.randn(1, 2, 3, 16, generator=torch.Generator().manual_seed(3))
    turning = Turning(tiny_llama.model.model.rotary_emb, None)
    for positions in (0, 1, 5, 70_000):
        found = turning.by(positions, keys, half_turned(keys))
        torch.testing.assert_close(found, turned(keys, positions), atol=2e-2 if positions > 9 else 1e-5, rtol=0)
    assert math.isclose(float(found.norm()), float(keys.norm()), rel_tol=1e-4)


def test_keys_that_cannot_be_turned_are_refused(tiny_llama: Subject) -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=64, n_positions=64)).eval()
    other = Subject(model, None, tiny_llama.facts, torch.device("cpu"))
    tiny_llama.model.model.rotary_emb.rope_type = "dynamic"
    for subject in (other, tiny_llama):
        with pytest.raises(RecipeError, match="rotary") as caught:
            apply_switch(subject, WindowCache(window=W, sinks=S))
        assert caught.value.field == "switches.window_cache.sinks"


def test_embeddings_that_turn_in_another_way_are_refused(tiny_llama: Subject) -> None:
    rotary = tiny_llama.model.model.rotary_emb
    plain = rotary.forward
    rotary.forward = lambda x, position_ids: tuple(side.flip(-1) for side in plain(x, position_ids))
    apply_switch(tiny_llama, WindowCache(window=W, sinks=S))  # turned the same way as the model's keys, only unusual
    rotary.forward = lambda x, position_ids: plain(x, 2 * position_ids if x.dim() == 1 else position_ids)
    with pytest.raises(RecipeError, match="rotary"):
        apply_switch(tiny_llama, WindowCache(window=W, sinks=S))


@pytest.mark.parametrize(
    ("fields", "field"), [({"window": 0}, "window"), ({"window": 8, "sinks": 8}, "sinks"), ({"sinks": -1}, "sinks")]
)
def test_bad_sizes_are_cards(fields: dict[str, int], field: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.read({"switches": {"window_cache": fields}})
    assert caught.value.field == f"switches.window_cache.{field}"
