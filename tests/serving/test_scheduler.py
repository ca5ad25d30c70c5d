"""The scheduler against a plain reference, and what must hold whatever comes: tokens, order, blocks."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from backend.recipe.base import RecipeError
from backend.recipe.serving import Limits
from backend.serving.request import Request
from backend.serving.scheduler import Scheduler

sys.path.insert(0, str(Path(__file__).parent))
from reference import steps

LENGTHS = some.lists(some.tuples(some.integers(1, 30), some.integers(1, 12)), min_size=1, max_size=12)
LIMITS = some.builds(
    Limits,
    batching=some.sampled_from(["continuous", "static", "shrinking"]),
    slots=some.integers(1, 4),
    block_tokens=some.integers(1, 8),
    chunk_tokens=some.integers(1, 16),
    admission=some.sampled_from(["reserve", "grow"]),
    preemption=some.sampled_from(["recompute", "swap"]),
)


def asked(lengths: list[tuple[int, int]]) -> list[Request]:
    return [Request(number, (1,) * prompt, answer) for number, (prompt, answer) in enumerate(lengths)]


def enough(requests: list[Request], limits: Limits, spare: int) -> int:
    """Blocks for the largest alone, and some more."""
    return max(-(-one.total // limits.block_tokens) for one in requests) + spare


@settings(max_examples=120, deadline=None)
@given(LENGTHS, LIMITS, some.integers(0, 12))
def test_reserved_and_continuous_it_does_what_the_reference_does(lengths, limits: Limits, spare: int) -> None:
    limits = limits.model_copy(update={"batching": "continuous", "admission": "reserve"})
    requests = asked(lengths)
    blocks = enough(requests, limits, spare)
    line, told = Scheduler(limits, blocks), []
    for one in requests:
        line.add(one)
    while line.waiting or line.running:
        plan = line.plan()
        told.append({feed.id: feed.count for feed in plan.feeds})
        line.advance(plan)
    assert told == steps(requests, limits, blocks)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, LIMITS, some.integers(0, 12), some.integers(0, 999))
def test_whatever_comes_every_token_is_written_once_and_every_block_comes_back(lengths, limits, spare, chance) -> None:
    chance, requests = Random(chance), asked(lengths)
    line, written = Scheduler(limits, enough(requests, limits, spare)), dict.fromkeys(range(len(requests)), 0)
    held: dict[int, int] = {}  # tokens in the cache of each, as an engine would have them
    coming, gone, order = list(requests), set(), []
    for _ in range(5_000):
        while coming and chance.random() < 0.5:
            line.add(coming.pop(0))
        if line.running and chance.random() < 0.05:
            gone.add(line.cancel(line.running[-1].request.id).request.id)
        plan = line.plan()
        for move in plan.leaves:
            held[move.id] = held[move.id] if move.swap else 0
        for move in plan.enters:
            order += [move.id] if move.id not in held else []
            assert held.setdefault(move.id, 0) == move.tokens
        real = [feed for feed in plan.feeds if not feed.ghost]
        for feed in real:
            assert feed.start == held[feed.id], "a token is left out or read twice"
            held[feed.id] += feed.count
            written[feed.id] += feed.emits
        slots = [feed.slot for feed in plan.feeds]
        assert len(slots) == len(set(slots)) <= limits.slots
        assert line.blocks.used == sum(one.blocks for one in (*line.running, *line.ghosts)) <= line.blocks.total
        ghosts = [feed for feed in plan.feeds if feed.ghost]
        assert len(ghosts) == len(line.ghosts), "what is computed holds its blocks, and nothing else does"
        line.advance(plan)
        if not (coming or line.waiting or line.running):
            break
    assert all(written[one.id] == one.max_new_tokens for one in requests if one.id not in gone)
    assert order == sorted(order), "who came first enters first"
    assert line.blocks.used == 0


def test_a_static_batch_computes_rows_that_have_ended_to_its_end() -> None:
    line = Scheduler(Limits(batching="static", slots=2), blocks=100)
    for one in asked([(3, 1), (3, 4), (3, 2)]):
        line.add(one)
    told = []
    while line.waiting or line.running:
        plan = line.plan()
        told.append([(feed.id, feed.ghost) for feed in plan.feeds])
        line.advance(plan)
    assert told[:2] == [[(0, False), (1, False)], [(1, False), (0, True)]]
    assert told[4] == [(2, False)]


def test_where_memory_runs_out_the_youngest_leaves_and_comes_back() -> None:
    line = Scheduler(Limits(slots=2, block_tokens=1, preemption="swap"), blocks=8)
    for one in asked([(2, 6), (2, 6)]):
        line.add(one)
    left = []
    while line.waiting or line.running:
        plan = line.plan()
        left += [(move.id, move.swap) for move in plan.leaves]
        line.advance(plan)
    assert left == [(1, True)]
    assert line.preemptions == 1


def test_what_could_never_fit_is_refused() -> None:
    line = Scheduler(Limits(block_tokens=4), blocks=2)
    with pytest.raises(RecipeError, match="at most 8 tokens"):
        line.add(Request(0, (1,) * 5, 4))
    line.add(Request(1, (1,) * 4, 4))
    with pytest.raises(RecipeError, match=r"request\.id"):
        line.add(Request(1, (1,), 1))


def test_rows_that_have_ended_keep_their_blocks_until_their_batch_has() -> None:
    line = Scheduler(Limits(batching="static", slots=2, block_tokens=1, admission="reserve"), blocks=20)
    for one in asked([(3, 1), (3, 4), (3, 2)]):
        line.add(one)
    used = []
    while line.waiting or line.running:
        plan = line.plan()
        used.append(line.blocks.used)
        line.advance(plan)
    assert used == [11, 11, 11, 11, 5, 5]
    assert line.blocks.used == 0


def test_a_batch_that_its_own_rows_hold_up_is_cut_short() -> None:
    line = Scheduler(Limits(batching="static", slots=2, block_tokens=1), blocks=9)
    for one in asked([(3, 1), (3, 6)]):
        line.add(one)
    steps = []
    while line.waiting or line.running:
        plan = line.plan()
        steps.append([feed.ghost for feed in plan.feeds])
        line.advance(plan)
    assert steps == [[False, False], [False, True], [False, True], [False], [False], [False]]
    assert line.preemptions == 0


def test_a_row_that_is_cancelled_last_ends_the_batch() -> None:
    line = Scheduler(Limits(batching="static", slots=2), blocks=20)
    for one in asked([(3, 1), (3, 4)]):
        line.add(one)
    line.advance(line.plan())
    assert line.ghosts
    line.cancel(1)
    assert line.blocks.used == 0
    assert sorted(line.left()) == [0, 1]
