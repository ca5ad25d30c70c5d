"""The static cache: the same output as the dynamic one, all memory taken at once."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from backend.recipe.switches.cache import StaticCache
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back


@torch.inference_mode()
def decode(subject: Subject, prompt: int = 10) -> Tensor:
    """Logits (T, V) over the subject's text, the prompt in one call and then token by token."""
    ids, make = torch.tensor([subject.sample_ids]), subject.plan.make_cache
    cache = make(ids.shape[1]) if make else DynamicCache(config=subject.model.config)
    rows = [subject.model(input_ids=ids[:, :prompt], cache=cache, use_cache=True).logits[0]]
    for place in range(prompt, ids.shape[1]):
        rows.append(subject.model(input_ids=ids[:, place : place + 1], cache=cache, use_cache=True).logits[0])
    return torch.cat(rows)


def test_equals_the_dynamic_cache(any_subject: Subject) -> None:
    dynamic = decode(any_subject)  # 64 tokens: well past the window of 16 of the sliding layers
    apply_switch(any_subject, StaticCache())
    torch.testing.assert_close(decode(any_subject), dynamic, atol=1e-4, rtol=1e-4)


def test_takes_all_memory_with_the_first_token(tiny_gemma: Subject) -> None:
    apply_switch(tiny_gemma, StaticCache())
    assert tiny_gemma.plan.make_cache
    cache = tiny_gemma.plan.make_cache(40)
    tiny_gemma.model(input_ids=torch.tensor([[5]]), cache=cache)
    assert [layer.keys.shape[2] for layer in cache.layers] == [16, 16, 40]


def test_receipt_looks_at_a_real_cache(any_subject: Subject) -> None:
    assert not read_back(any_subject, StaticCache()).took_effect
    apply_switch(any_subject, StaticCache())
    effect = read_back(any_subject, StaticCache())
    assert effect.took_effect
    assert effect.facts["cache"] == "StaticCache"
    assert effect.facts["kv_bytes_per_token"] == 4 * any_subject.facts.kv_values_per_token
