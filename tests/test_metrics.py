"""Arithmetic on timestamps and the intervals of paired ratios."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from backend.metrics import (
    Request,
    changed_answers_p,
    cost_per_million,
    mean_interval,
    paired_ratio,
    percentiles,
    repetition_rate,
    share_interval,
)

positive = st.floats(0.01, 100.0)


def test_a_request_by_hand():
    request = Request((0.5, 0.6, 0.7, 0.7, 0.9))
    assert request.ttft_s == 0.5
    assert request.e2e_s == 0.9
    assert request.tpot_s == pytest.approx(0.1)
    assert request.tokens_per_s == pytest.approx(10)
    assert request.itl_s == pytest.approx([0.1, 0.1, 0.2])  # the two tokens at 0.7 s are one emission


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=40))
def test_swapping_the_pair_inverts_the_ratio(pairs):
    ours, theirs = zip(*pairs, strict=True)
    there, back = paired_ratio(ours, theirs), paired_ratio(theirs, ours)
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.low <= there.ratio * (1 + 1e-9)
    assert there.high >= there.ratio * (1 - 1e-9)


@given(positive, st.integers(1, 30))
def test_equal_pairs_give_their_ratio_and_no_width(value, count):
    result = paired_ratio([2 * value] * count, [value] * count)
    assert result.ratio == pytest.approx(2)
    if count > 1:
        assert result.width == pytest.approx(0, abs=1e-9)
    else:
        assert math.isinf(result.high)


@pytest.mark.parametrize("pairs", [3, 6, 12, 30])
def test_the_interval_covers_the_truth_as_often_as_it_says(pairs):
    rng = np.random.default_rng(pairs)
    missed = 0
    for _ in range(600):
        result = paired_ratio(np.exp(rng.normal(0, 0.03, pairs)), np.exp(rng.normal(0, 0.03, pairs)))
        missed += not result.low <= 1 <= result.high
    assert missed / 600 < 0.08


def test_six_pairs_take_the_extreme_walsh_averages():
    # With six pairs P(T <= 0) = 1/64 <= .025 < P(T <= 1): the interval runs from the least to the greatest value.
    result = paired_ratio([1.1, 1.2, 1.15, 1.3, 1.25, 1.21], [1.0] * 6)
    assert (result.low, result.high) == (pytest.approx(1.1), pytest.approx(1.3))


@pytest.mark.parametrize(
    ("low", "high", "noise"), [(0.9, 1.1, True), (1.01, 1.3, True), (1.03, 1.1, False), (0.5, 0.97, False)]
)
def test_noise_is_what_two_equal_lanes_may_show(low, high, noise):
    from backend.metrics import Ratio

    assert Ratio(math.sqrt(low * high), low, high, 8).within_noise is noise


def test_a_ratio_is_open_while_its_interval_cannot_follow_the_estimate():
    from backend.metrics import Ratio

    assert Ratio(0.97, 0.95, 0.99, 8).is_open
    assert not Ratio(0.97, 0.96, 0.98, 8).is_open
    assert not Ratio(1.0, 0.9, 1.1, 8).is_open


@pytest.mark.parametrize("bad", [([], []), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_figures_that_are_not_positive_are_refused(bad):
    with pytest.raises(ValueError, match="positive"), np.errstate(all="ignore"):
        paired_ratio(*bad)


def test_mcnemar_by_hand():
    # Six answers lost, none gained: p = 2 / 2**6.
    assert changed_answers_p([1] * 6 + [0, 1], [0] * 6 + [0, 1]) == pytest.approx(2 / 64)
    assert changed_answers_p([1, 0], [1, 0]) == 1.0


def test_mean_interval_is_students():
    values = [1.0, 2.0, 4.0]
    mean, low, high = mean_interval(values)
    expected = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)


def test_cost_and_percentiles_by_hand():
    assert cost_per_million(100.0, 3.6) == pytest.approx(10.0)  # a million tokens take 10,000 s
    assert percentiles([1.0, 2.0, 3.0])["p50"] == 2.0


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 5))
def test_repetition_is_the_share_of_grams_that_stood_before(ids, n):
    rate = repetition_rate(ids, n)
    grams = [tuple(ids[at : at + n]) for at in range(max(0, len(ids) - n + 1))]
    if len(grams) < 2:
        assert rate is None
        return
    assert rate == pytest.approx(sum(gram in grams[:at] for at, gram in enumerate(grams)) / len(grams))
    assert repetition_rate([token + 100 for token in ids], n) == rate  # whatever the tokens are called


def test_repetition_by_hand():
    assert repetition_rate([1, 2, 3, 4, 5, 6]) == 0
    assert repetition_rate([7] * 11) == pytest.approx(7 / 8)
    assert repetition_rate([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)


def test_wilsons_interval_of_a_share():
    low, high = share_interval(81, 100)
    assert (low, high) == (pytest.approx(0.7222, abs=1e-3), pytest.approx(0.8749, abs=1e-3))
    assert share_interval(5, 5)[1] == pytest.approx(1)
