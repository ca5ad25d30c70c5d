"""Beginnings of prompts: keys that stand for all before them, who has to go, and who begins behind them."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as some

from backend.recipe.serving import Limits
from backend.serving.prefixes import Prefixes, chain
from backend.serving.request import Request
from backend.serving.scheduler import Scheduler

A, B, C = (1, 1), (2, 2), (3, 3)


def kept(prefixes: Prefixes, *prompts: tuple[int, ...]) -> list[int]:
    """How many blocks of each are found."""
    return [len(prefixes.find(chain(ids, prefixes.tokens))) for ids in prompts]


def test_a_key_stands_for_all_tokens_before_it() -> None:
    assert chain([1, 2, 3, 4, 5], 2) == chain([1, 2, 3, 4], 2)
    assert chain([1, 2, 3, 4], 2)[0] == chain([1, 2, 9, 9], 2)[0]
    assert chain([1, 2, 3, 4], 2)[1] != chain([9, 9, 3, 4], 2)[1]
    assert chain([3, 4], 2)[0] != chain([1, 2, 3, 4], 2)[1]
    assert len(chain([1], 2)) == 0


def test_equal_blocks_after_other_parents_never_hit() -> None:
    prefixes = Prefixes(8, 2)
    assert [block for block, _ in prefixes.add(chain(A + B, 2), 0)] == [0, 1]
    assert kept(prefixes, A + B, C + B, B, A + C) == [2, 0, 0, 1]


def test_the_least_recently_used_goes_from_its_end() -> None:
    prefixes = Prefixes(3, 2)
    prefixes.add(chain(A + B, 2), 0)
    prefixes.add(chain(C, 2), 0)
    kept(prefixes, A + B)
    prefixes.add(chain(B, 2), 0)
    assert kept(prefixes, C, A + B, B) == [0, 2, 1]
    prefixes.add(chain(C, 2), 0)
    assert kept(prefixes, A + B, B, C) == [1, 1, 1], "a beginning outlives what comes behind it"
    assert prefixes.used == 3


def test_a_prompt_that_is_longer_than_the_room_keeps_its_beginning() -> None:
    prefixes = Prefixes(2, 2)
    assert len(prefixes.add(chain(A + B + C, 2), 0)) == 2
    assert kept(prefixes, A + B + C) == [2]
    assert Prefixes(0, 2).add(chain(A, 2), 0) == []


@settings(max_examples=100, deadline=None)
@given(some.lists(some.lists(some.integers(0, 1), max_size=9), max_size=25), some.integers(0, 6))
def test_whatever_comes_found_places_hold_the_blocks_that_were_asked_for(prompts, room: int) -> None:
    prefixes, held = Prefixes(room, 2), {}
    for ids in prompts:
        keys = chain(ids, 2)
        for block, place in enumerate(prefixes.find(keys)):
            assert held[place] == tuple(ids[: 2 * block + 2])
        for block, place in prefixes.add(keys, 0):
            held[place] = tuple(ids[: 2 * block + 2])
        assert len(held) == prefixes.used <= room
        assert len(prefixes.find(keys)) == min(len(keys), room)


PROMPTS = some.lists(
    some.tuples(some.lists(some.integers(1, 2), min_size=1, max_size=24), some.integers(1, 8)), min_size=1, max_size=10
)
LIMITS = some.builds(
    Limits,
    batching=some.sampled_from(["continuous", "static"]),
    slots=some.integers(1, 4),
    block_tokens=some.integers(1, 5),
    chunk_tokens=some.integers(1, 16),
    preemption=some.sampled_from(["recompute", "swap"]),
    prefix_blocks=some.integers(1, 12),
)


@settings(max_examples=150, deadline=None)
@given(PROMPTS, LIMITS, some.integers(0, 8), some.integers(0, 999))
def test_every_token_is_read_or_copied_from_where_it_was_read(asked, limits: Limits, spare: int, chance: int) -> None:
    """Slots and places as an engine would fill them: what is copied must be what would have been read."""
    requests = [Request(number, tuple(ids), answer) for number, (ids, answer) in enumerate(asked)]
    most = max(limits.needed(one.total) for one in requests)
    line, coming, random = Scheduler(limits, most + spare), list(requests), Random(chance)
    texts = {one.id: list(one.prompt) for one in requests}
    slots: dict[int, list[int]] = {}  # tokens whose keys and values lie there, as texts
    saved: dict[int, list[int]] = {}
    places: dict[int, list[int]] = {}  # of a kept block: all tokens up to its end
    size = limits.block_tokens
    for _ in range(3_000):
        while coming and random.random() < 0.5:
            line.add(coming.pop(0))
        plan = line.plan()
        for move in plan.leaves:
            saved[move.id] = slots[move.id][: move.tokens] if move.swap else []
        for move in plan.enters:
            slots[move.id] = saved.pop(move.id, [])
        for copy in plan.copies:
            assert not slots[copy.id]
            assert len(copy.places) * size < len(texts[copy.id]), "one token at least is computed"
            slots[copy.id] = list(places[copy.places[-1]])
        for feed in (one for one in plan.feeds if not one.ghost):
            assert slots[feed.id] == texts[feed.id][: feed.start]
            slots[feed.id] = texts[feed.id][: feed.start + feed.count]
            if feed.emits:
                texts[feed.id].append(3 + feed.id)
        for keep in plan.keeps:
            for block, place in zip(keep.blocks, keep.places, strict=True):
                places[place] = slots[keep.id][: (block + 1) * size]
                assert len(places[place]) == (block + 1) * size
        line.advance(plan)
        if not (coming or line.waiting or line.running):
            break
    assert all(len(texts[one.id]) == one.total for one in requests)
    assert line.blocks.used == 0
    assert line.prefixes.asked_tokens == sum(len(one.prompt) for one in requests)
    assert 0 <= line.prefixes.reused_tokens < line.prefixes.asked_tokens


def test_those_that_came_together_still_share_what_the_first_has_read() -> None:
    line = Scheduler(Limits(slots=4, block_tokens=4, chunk_tokens=8, prefix_blocks=8), blocks=40)
    for number in range(3):
        line.add(Request(number, (1, 2, 3, 4, 5, 6, 7, 8, 9, number), 2))
    read = 0
    while line.waiting or line.running:
        plan = line.plan()
        read += sum(feed.count for feed in plan.feeds if feed.start < 10)
        line.advance(plan)
    assert read == 10 + 2 + 2
    assert line.prefixes.hit_rate == 16 / 30
