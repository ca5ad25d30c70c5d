"""Routing: counts by hand, balance between its two ends, and pieces that make the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.routing import Routing, balance

PIECES = [
    {"experts": 3, "picks": [], "prompt": {"counts": [[2, 0, 2], [1, 3, 0]], "pairs": 8, "dropped": 2}},
    {"experts": 3, "picks": [[[0, 2], [1, 0]], [[2, 0], [1, 2]]]},
]


def test_by_hand() -> None:
    routing = Routing()
    for piece in PIECES:
        routing.take(piece)
    assert routing.written == [[2, 0, 2], [1, 2, 1]]
    assert routing.counts == [[4, 0, 4], [2, 5, 1]]
    entry = routing.as_dict()
    assert entry["per_token"] == 2
    assert entry["tokens"] == 2
    assert entry["idle"] == 1
    assert entry["share_dropped"] == 0.25


def test_a_lane_that_wrote_nothing_still_has_its_prompt() -> None:
    routing = Routing()
    routing.take(PIECES[0])
    assert routing.counts == PIECES[0]["prompt"]["counts"]  # type: ignore[index]
    assert routing.as_dict()["per_token"] == 0


def test_the_ends_of_balance() -> None:
    assert balance([5, 5, 5, 5]) == {"variation": 0.0, "entropy": pytest.approx(1.0), "idle": 0}
    assert balance([8, 0, 0, 0]) == {"variation": pytest.approx(3**0.5), "entropy": pytest.approx(0.0), "idle": 3}
    assert balance([0, 0])["idle"] == 2
    assert balance([7])["variation"] == 0.0


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=64))
def test_balance_stays_within_its_ends_and_does_not_know_the_names(counts: list[int]) -> None:
    found = balance(counts)
    assert 0 <= found["variation"] <= (len(counts) - 1) ** 0.5 + 1e-9
    assert -1e-9 <= found["entropy"] <= 1 + 1e-9
    turned = balance(counts[::-1])
    assert turned["variation"] == pytest.approx(found["variation"])
    assert turned["entropy"] == pytest.approx(found["entropy"], abs=1e-9)
