"""Prefixes in the batched engine: what is copied changes no answer, in models with windows either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from backend.engine.batch.engine import BatchEngine
from backend.engine.batch.prefixes import PrefixStore
from backend.engine.batch.slots import SlotCache
from backend.engine.decode import Decoder
from backend.recipe.race import Sampling
from backend.recipe.serving import Limits
from backend.serving.plan import Copy, Keep
from backend.serving.request import Request
from backend.techniques.base import Subject

SHARED = 37  # tokens: more than the window of the tiny Gemma
OWN = [(5, 6), (1, 9), (12, 3), (3, 8), (0, 4), (0, 4)]
LIMITS = {
    "enough": {"slots": 3, "prefix_blocks": 40, "chunk_tokens": 16},
    "static": {"slots": 2, "prefix_blocks": 40, "batching": "static"},
    "few, that are thrown out": {"slots": 3, "prefix_blocks": 5, "chunk_tokens": 8},
    "little memory, recompute": {"slots": 4, "blocks": 30, "prefix_blocks": 20},
    "little memory, swap": {"slots": 4, "blocks": 30, "prefix_blocks": 20, "preemption": "swap"},
}


def alone(subject: Subject, request: Request) -> list[int]:
    decoder = Decoder(subject, request.sampling or Sampling(), request.seed)
    tokens = [decoder.start(list(request.prompt), room=request.max_new_tokens).token]
    while len(tokens) < request.max_new_tokens:
        tokens += [one.token for one in decoder.step()]
    return tokens


def served(engine: BatchEngine, requests: list[Request]) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Answers, and tokens of each prompt that were copied; all come at once."""
    answers: dict[int, list[int]] = {one.id: [] for one in requests}
    cached = {}
    for one in requests:
        engine.submit(one)
    while not engine.idle:
        for told in engine.step():
            answers[told.id] += [] if told.token is None else [told.token]
            cached[told.id] = told.cached
    return answers, cached


def asked(prompt: Callable[..., list[int]], **fields: Any) -> list[Request]:
    shared = prompt(SHARED, 99)
    return [
        Request(at, (*shared, *(prompt(own, at) if own else [])), answer, **fields)
        for at, (own, answer) in enumerate(OWN)
    ]


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_greedy_answers_are_those_written_alone(subject_of, prompt, shape: str, limits: dict[str, Any]) -> None:
    subject, requests = subject_of(shape), asked(prompt)
    subject.longest = 64
    engine = BatchEngine(subject, Limits.read({"block_tokens": 4, **limits}))
    answers, cached = served(engine, requests)
    assert answers == {one.id: alone(subject, one) for one in requests}
    stats = engine.stats()
    assert cached[0] == 0
    assert stats["prefix_reused_tokens"] == sum(cached.values()) > 0
    assert stats["prefix_hit_rate"] == sum(cached.values()) / sum(len(one.prompt) for one in requests)
    assert 0 < stats["prefix_blocks_used"] <= limits["prefix_blocks"]
    assert stats["blocks_used"] == 0


def test_sampled_answers_are_those_of_their_seed(subject_of, prompt) -> None:
    subject = subject_of("gemma")
    requests = asked(prompt, sampling=Sampling(temperature=0.8), seed=7)
    answers, _ = served(BatchEngine(subject, Limits(slots=3, block_tokens=4, prefix_blocks=40)), requests)
    assert answers == {one.id: alone(subject, one) for one in requests}


def test_of_an_equal_prompt_one_token_at_least_is_computed(subject_of, prompt) -> None:
    engine = BatchEngine(subject_of("llama"), Limits(block_tokens=4, prefix_blocks=40))
    for number, length in enumerate((16, 16, 17)):
        _, cached = served(engine, [Request(number, tuple(prompt(17, 3)[:length]), 2)])
        assert cached[number] == (0, 12, 16)[number]


def test_equal_tokens_after_another_beginning_are_computed_again(subject_of, prompt) -> None:
    subject = subject_of("llama")
    engine, tail = BatchEngine(subject, Limits(block_tokens=4, prefix_blocks=40)), prompt(12, 5)
    served(engine, [Request(0, (*prompt(8, 1), *tail), 2)])
    other = Request(1, (*prompt(8, 2), *tail), 6)
    answers, cached = served(engine, [other])
    assert cached[1] == 0
    assert answers[1] == alone(subject, other)


def test_without_room_nothing_is_told(subject_of, prompt) -> None:
    engine = BatchEngine(subject_of("llama"), Limits(block_tokens=4))
    _, cached = served(engine, asked(prompt))
    assert set(cached.values()) == {0}
    assert "prefix_hit_rate" not in engine.stats()


def test_blocks_are_copied_number_by_number() -> None:
    cache, store = SlotCache(3, 16), PrefixStore(4, 2)
    states = torch.randn(2, 1, 3, 6, 5)  # keys and values (B, H, T, D)
    for side, held in zip(states, cache.layer(0, *states), strict=True):
        held[1, :, :6] = side[0]
    store.keep(cache, Keep(7, 1, (0, 2), (3, 1)))
    cache.forget(1)
    store.copy(cache, Copy(8, 2, (3, 1)))
    for side, held in zip(states, cache.layers[0], strict=True):
        assert torch.equal(held[2, :, :2], side[0, :, :2])
        assert torch.equal(held[2, :, 2:4], side[0, :, 4:6])
