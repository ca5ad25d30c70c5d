"""The context sweep: caches filled from a record, and tokens that pass together as they would one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from backend.engine.contexts import Contexts, empty
from backend.engine.memory import MemoryMeter
from backend.engine.recorded import at_once, fill, record_of
from backend.recipe.recipe import Recipe
from backend.techniques.base import Subject

PROMPT, TAIL = 70, 27
CACHES: dict[str, dict[str, Any]] = {
    "full": {},
    "static": {"static_cache": {}},
    "packed": {"quantized_cache": {"key_bits": 2, "value_bits": 2, "group_size": 8, "recent": 4}},
    "packed at once": {"quantized_cache": {"key_bits": 4, "value_bits": 4, "group_size": 8, "recent": 0}},
    "window": {"window_cache": {"window": 12}},
}


@torch.inference_mode()
def passed(subject: Subject, cache: Cache, ids: list[int], sizes: list[int]) -> Tensor:
    """Logits (T, V) of tokens that pass in calls of these sizes."""
    parts = torch.tensor([ids], device=subject.device).split(sizes, dim=1)
    return torch.cat([subject.model(input_ids=part, cache=cache, use_cache=True).logits[0] for part in parts])


def recorded(subject: Subject, ids: list[int]) -> Cache:
    record = record_of(subject.model)
    passed(subject, record, ids, [30, 1, len(ids) - 31])
    return record


@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_a_record_is_read_as_in_one_call(subject_of, prompt, shape: str) -> None:
    subject, ids = subject_of(shape), prompt(PROMPT)
    whole = passed(subject, DynamicCache(config=subject.model.config), ids, [PROMPT])
    torch.testing.assert_close(passed(subject, record_of(subject.model), ids, [30, 1, 39]), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("switches", CACHES.values(), ids=CACHES)
@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_a_filled_cache_goes_on_as_after_its_own_prompt(subject_of, prompt, shape: str, switches: Any) -> None:
    subject, ids, tail = subject_of(shape), prompt(PROMPT), prompt(TAIL, 1)
    recipe = Recipe.read({"switches": switches})
    own = empty(subject, recipe, PROMPT + TAIL)
    passed(subject, own, ids, [PROMPT])
    filled = fill(empty(subject, recipe, PROMPT + TAIL), recorded(subject, [*ids, *tail]), PROMPT)
    expected = passed(subject, own, tail, [1] * TAIL)
    torch.testing.assert_close(passed(subject, filled, tail, [1] * TAIL), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("switches", CACHES.values(), ids=CACHES)
@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_tokens_pass_together_where_that_changes_nothing(subject_of, prompt, shape: str, switches: Any) -> None:
    subject, tail = subject_of(shape), prompt(TAIL, 1)
    recipe, record = Recipe.read({"switches": switches}), recorded(subject, prompt(PROMPT))
    together, one_by_one = (fill(empty(subject, recipe, PROMPT + TAIL), record, PROMPT) for _ in range(2))
    sizes: list[int] = []
    rows: list[Tensor] = []
    while (done := sum(sizes)) < TAIL:
        sizes.append(min(at_once(together, 16), TAIL - done))
        rows.append(passed(subject, together, tail[done : done + sizes[-1]], [sizes[-1]]))
    expected = passed(subject, one_by_one, tail, [1] * TAIL)
    torch.testing.assert_close(torch.cat(rows), expected, atol=1e-4, rtol=1e-4)
    assert (len(sizes) == TAIL) == ("window_cache" in switches)


def test_larger_calls_than_that_would_see_too_much_in_full(subject_of, prompt) -> None:
    subject, tail = subject_of("llama"), prompt(TAIL, 1)
    recipe, record = Recipe.read({"switches": CACHES["packed"]}), recorded(subject, prompt(PROMPT))
    together, one_by_one = (fill(empty(subject, recipe, PROMPT + TAIL), record, PROMPT) for _ in range(2))
    off = passed(subject, together, tail, [TAIL]) - passed(subject, one_by_one, tail, [1] * TAIL)
    assert off.abs().max() > 1e-2


def test_every_token_is_scored_after_it_was_decoded(subject_of, prompt) -> None:
    subject = subject_of("gemma")
    race = {"model": "storyteller", "prompt": "Once", "variants": [{}]}
    caches = [{"switches": CACHES[name]} for name in ("static", "packed")]
    sweep = Contexts(subject, prompt(300), MemoryMeter())
    told = sweep.context_start({"race": race, "longest": 256, "scored": 16, "caches": caches})
    assert told["lengths"] == [128, 256]
    for length in told["lengths"]:
        static, packed = sweep.context_quality(length)["caches"]
        assert static["kld"] < 1e-6 < 1e-3 < packed["kld"]
        assert packed["kv_bytes"] < static["kv_bytes"]
