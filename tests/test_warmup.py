"""Warm-up found by change-point: hand-made rows, and what holds for any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.warmup import FEWEST, steady_from

SECONDS = st.lists(st.floats(1e-4, 10.0), min_size=0, max_size=60)


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ([], 0),
        ([1.0] * 10, 0),
        ([3.0, 1.0, 1.0], 0),  # too few to tell
        ([3.0, 1.0, 1.01, 0.99, 1.0, 1.0], 1),
        ([3.0, 2.9, 3.1, 1.0, 1.01, 0.99, 1.0, 1.0, 1.02, 0.98], 3),
        ([0.8, 0.8, 1.0, 1.01, 0.99, 1.0, 1.0, 1.0], 2),  # faster before the processor is hot
        ([1.0, 1.01, 0.99, 1.0, 1.02, 5.0, 1.0, 0.99, 1.01, 1.0, 1.0, 1.02], 0),  # one interruption in mid-run
        ([1.0, 1.01, 0.99, 1.0, 1.0, 1.01, 2.0, 2.0, 2.01, 1.99], 0),  # what comes late is no warm-up
        ([1 - 0.0005 * n for n in range(20)], 0),  # a slow drift of a hundredth
    ],
)
def test_rows_made_by_hand(values: list[float], first: int) -> None:
    assert steady_from(values) == first


@given(SECONDS)
def test_never_more_than_a_third_is_left_out(values: list[float]) -> None:
    first = steady_from(values)
    assert 0 <= first <= len(values) // 3
    assert len(values) >= FEWEST or first == 0


@given(SECONDS, st.integers(-8, 8))
def test_the_unit_does_not_matter(values: list[float], power: int) -> None:
    assert steady_from([value * 2.0**power for value in values]) == steady_from(values)


@pytest.mark.parametrize("slow", [1, 2, 3, 5, 8, 13])
def test_a_slow_beginning_is_found_to_the_round(slow: int) -> None:
    """Nearly always; by chance a place a little later may look as good."""
    found = []
    for seed in range(300):
        values = np.exp(np.random.default_rng(seed).uniform(-0.01, 0.01, 40))
        values[:slow] *= 1.3
        found.append(steady_from(values.tolist()))
    assert np.mean([first == slow for first in found]) > 0.97
    assert np.mean(found) == pytest.approx(slow, abs=0.2)


def test_noise_alone_is_seldom_taken_for_a_warm_up() -> None:
    rng = np.random.default_rng(5)
    for rounds in (8, 14, 40):
        found = [steady_from(np.exp(rng.normal(0, 0.02, rounds)).tolist()) for _ in range(400)]
        assert np.mean([first > 0 for first in found]) < 0.15
        assert np.mean(found) < 0.05 * rounds


@pytest.mark.parametrize("bad", [[1.0, 0.0, 1.0, 1.0], [1.0, -1.0, 1.0, 1.0], [1.0, float("inf"), 1.0, 1.0]])
def test_what_is_no_time_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError), np.errstate(all="ignore"):
        steady_from(bad)
