"""The engine without batches: turns, ends, and requests that are given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backend.engine.decode import Decoder
from backend.engine.sequential import SequentialEngine
from backend.recipe.base import RecipeError
from backend.recipe.race import Sampling
from backend.serving.request import Request
from backend.techniques.base import Subject
from backend.techniques.draft.prompt_lookup import PromptLookupProposer

Make = Callable[..., Any]


def alone(subject: Subject, ids: list[int], count: int) -> list[int]:
    decoder = Decoder(subject, Sampling(), 0)
    decoder.start(list(ids), count)
    while len(decoder.ids) < len(ids) + count:
        decoder.step()
    return decoder.ids[len(ids) :][:count]


def drained(engine: SequentialEngine) -> dict[int, tuple[list[int], str | None]]:
    """Tokens and end of each request; none is heard of after its end."""
    told: dict[int, tuple[list[int], str | None]] = {}
    while not engine.idle:
        for progress in engine.step():
            tokens, ended = told.get(progress.id, ([], None))
            assert ended is None
            told[progress.id] = ([*tokens, *([] if progress.token is None else [progress.token])], progress.finished)
    return told


@pytest.mark.parametrize("drafts", [False, True])
def test_each_gets_what_it_gets_alone(subject_of: Make, with_plan: Make, prompt: Make, drafts: bool) -> None:
    plain = subject_of("llama", 2)
    served = with_plan(plain, proposer=PromptLookupProposer(4, 2)) if drafts else plain
    engine = SequentialEngine(served, 2)
    assert engine.slots == (1 if drafts else 2)
    prompts = {id: prompt(8, id) * 2 for id in range(3)}
    for id, ids in prompts.items():
        engine.submit(Request(id, tuple(ids), 10 + id))
    told = drained(engine)
    assert told == {id: (alone(plain, ids, 10 + id), "length") for id, ids in prompts.items()}
    assert engine.stats() == {"queue": 0, "running": 0, "batch": 0}


def test_a_stop_token_ends_it_and_is_given_out(subject_of: Make, prompt: Make) -> None:
    subject, ids = subject_of("llama", 2), prompt(8, 1)
    text = alone(subject, ids, 12)
    engine = SequentialEngine(subject, 2)
    engine.submit(Request(1, tuple(ids), 12, stop_ids=(text[5],)))
    assert drained(engine) == {1: (text[: text.index(text[5]) + 1], "stop")}


def test_who_is_given_up_is_reported_once_and_others_go_on(subject_of: Make, prompt: Make) -> None:
    subject = subject_of("llama", 2)
    engine = SequentialEngine(subject, 1)
    for id in (1, 2, 3):
        engine.submit(Request(id, tuple(prompt(8, id)), 6))
    engine.step()
    for id in (1, 3, 3, 99):  # one that runs, one that waits, again, and one that nobody knows
        engine.cancel(id)
    told = drained(engine)
    assert (told[1], told[3]) == (([], "cancelled"), ([], "cancelled"))
    assert told[2] == (alone(subject, prompt(8, 2), 6), "length")
    assert 99 not in told


def test_one_that_the_context_does_not_hold_is_refused(subject_of: Make) -> None:
    subject = subject_of("llama", 2)
    with pytest.raises(RecipeError, match="Shorten it"):
        SequentialEngine(subject, 1).submit(Request(1, (1,), subject.facts.context))
