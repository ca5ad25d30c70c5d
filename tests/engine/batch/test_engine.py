"""The batched engine: every request gets the tokens that it gets alone, whoever comes, leaves or is thrown out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from backend.catalog import model_facts, resolve
from backend.engine.batch.engine import BatchEngine
from backend.engine.decode import Decoder
from backend.recipe.base import RecipeError
from backend.recipe.race import Sampling
from backend.recipe.serving import Limits
from backend.serving.request import Request
from backend.techniques.base import Subject

LENGTHS = [(5, 9), (1, 12), (20, 3), (33, 7), (2, 1), (17, 20)]
LIMITS = {
    "continuous": {"slots": 3, "chunk_tokens": 8},
    "static": {"slots": 3, "batching": "static"},
    "little memory, recompute": {"slots": 4, "block_tokens": 4, "blocks": 14, "chunk_tokens": 8},
    "little memory, swap": {"slots": 4, "block_tokens": 4, "blocks": 14, "chunk_tokens": 8, "preemption": "swap"},
    "a target of latency": {"slots": 3, "tpot_target_s": 0.001},
}


def alone(subject: Subject, request: Request) -> list[int]:
    decoder = Decoder(subject, request.sampling or Sampling(), request.seed)
    tokens = [decoder.start(list(request.prompt), room=request.max_new_tokens).token]
    while len(tokens) < request.max_new_tokens:
        tokens += [one.token for one in decoder.step()]
    return tokens


def together(engine: BatchEngine, requests: list[Request]) -> dict[int, list[int]]:
    """Half of them come at once, and one more with every step."""
    answers: dict[int, list[int]] = {one.id: [] for one in requests}
    coming = list(requests)
    for one in coming[: len(coming) // 2]:
        engine.submit(one)
    coming = coming[len(coming) // 2 :]
    while coming or not engine.idle:
        if coming:
            engine.submit(coming.pop(0))
        for one in engine.step():
            answers[one.id] += [] if one.token is None else [one.token]
    return answers


def asked(prompt: Callable[..., list[int]], **fields: Any) -> list[Request]:
    return [Request(at, tuple(prompt(size, at)), answer, **fields) for at, (size, answer) in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def written_alone(subject_of, prompt) -> Callable[[str], dict[int, list[int]]]:
    """The greedy answers of a shape to `asked`, written once."""
    return cache(lambda shape: {one.id: alone(subject_of(shape), one) for one in asked(prompt)})


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_greedy_answers_are_those_written_alone(
    subject_of, prompt, written_alone, shape: str, limits: dict[str, Any]
) -> None:
    subject, requests = subject_of(shape), asked(prompt)
    subject.longest = 60
    engine = BatchEngine(subject, Limits.read(limits))
    assert together(engine, requests) == written_alone(shape)
    assert engine.stats()["blocks_used"] == engine.stats()["running"] == 0
    if "blocks" in limits:
        assert engine.stats()["preemptions"] > 0


def test_sampled_answers_are_those_of_their_seed(subject_of, prompt) -> None:
    subject = subject_of("llama")
    requests = asked(prompt, sampling=Sampling(temperature=0.8), seed=7)
    found = together(BatchEngine(subject, Limits(slots=3)), requests)
    assert found == {one.id: alone(subject, one) for one in requests}


def test_who_hangs_up_frees_slot_and_blocks_and_harms_nobody(subject_of, prompt, written_alone) -> None:
    subject, requests = subject_of("llama"), asked(prompt)
    engine = BatchEngine(subject, Limits(slots=3))
    for one in requests:
        engine.submit(one)
    answers: dict[int, list[int]] = {one.id: [] for one in requests}
    ends = {}
    for step in range(100):
        if step == 2:
            engine.cancel(0)
            engine.cancel(5)
        for one in engine.step():
            answers[one.id] += [] if one.token is None else [one.token]
            ends |= {one.id: one.finished} if one.finished else {}
    assert {id for id, why in ends.items() if why == "cancelled"} == {0, 5}
    assert all(answers[id] == text for id, text in written_alone("llama").items() if id not in (0, 5))
    assert engine.idle
    assert engine.stats()["blocks_used"] == 0


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(1, (), 3), "one token of each at least"),
        (Request(1, (1,), -2), "one token of each at least"),
        (Request(1, (1,) * 100_000, 3), "the context"),
        (Request(1, (1, 10**6), 3), "tokens 0 to"),
    ],
)
def test_what_cannot_be_served_is_refused(subject_of, request_: Request, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        BatchEngine(subject_of("llama"), Limits()).submit(request_)


def test_the_storyteller_answers_together_as_alone(prompt) -> None:
    ref = resolve("storyteller")
    model = AutoModelForCausalLM.from_pretrained(ref.path, dtype=torch.float32, local_files_only=True).eval()
    subject = Subject(model, None, model_facts(ref, False), torch.device("cpu"))
    subject.longest = 64
    shared = prompt(13, 9, 90)
    requests = [Request(at, (*shared, *prompt(2 + 5 * at, at, 90)), 16) for at in range(4)]
    engine = BatchEngine(subject, Limits(slots=3, chunk_tokens=8, block_tokens=4, prefix_blocks=6))
    found = together(engine, requests)
    assert found == {one.id: alone(subject, one) for one in requests}
    assert engine.stats()["prefix_reused_tokens"] > 0
