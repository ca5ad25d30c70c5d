"""The quality alarm: which metrics fell, and that noise raises none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.alarm import KLD, judge_quality
from backend.metrics import mean_interval, percentiles, share_interval


def kld(mean: float, half: float = 0.0, p99: float | None = None, tokens: int = 128) -> dict:
    return {"mean": mean, "low": mean - half, "high": mean + half, "p99": p99 or 3 * mean, "tokens": tokens}


def agreement(right: int, asked: int = 128, ending: str = "") -> dict:
    low, high = share_interval(right, asked)
    return {f"top1{ending}": right / asked, f"top1{ending}_range": {"low": low, "high": high}}


def asked(baseline: float, share: float, within_noise: bool) -> dict:
    return {"baseline_share": baseline, "share": share, "within_noise": within_noise, "p": 0.01}


FINE = {"kld": kld(0.005), "top5": 0.95, **agreement(121)}  # weight-only int8 on Gemma
BAD = {
    "kld": kld(0.27, 0.03),
    "top5": 0.7,
    **agreement(91),
    "perplexity": {"ratio": 1.9, "low": 1.7, "high": 2.1, "baseline": 27.5, "value": 52.2, "within_noise": False},
}


def fallen(alarm: dict) -> list[tuple[str, str | None]]:
    return [(fall["metric"], fall["shape"]) for fall in alarm["fell"]]


def test_each_metric_that_fell_is_named_by_how_much_the_most_telling_first() -> None:
    alarm = judge_quality(BAD, {})
    assert alarm["raised"] is True
    assert fallen(alarm) == [("perplexity", None), ("top1", "decode"), ("kld", "decode"), ("top5", "decode")]
    assert alarm["fell"][0]["value"] == 1.9
    assert alarm["fell"][0]["times_over"] == pytest.approx(9)
    assert alarm["fell"][2]["limit"] == KLD
    assert alarm["fell"][2]["times_over"] == pytest.approx(2.7)


def test_what_is_fine_raises_nothing_and_says_what_was_judged() -> None:
    alarm = judge_quality(FINE, {})
    assert alarm == {"raised": False, "judged": ["kld", "top1", "top5"], "fell": [], "disagree": []}


def test_without_quality_there_is_no_judgement() -> None:
    assert judge_quality({"speed": {"ratio": 2}}, {}) is None


@pytest.mark.parametrize(
    "within",
    [
        {"kld": kld(0.13, 0.05)},  # the interval reaches below the limit
        agreement(8, 10) | {"kld": kld(0.01)},  # eight of ten may be ninety of a hundred
        {"perplexity": {"ratio": 1.3, "low": 0.9, "high": 1.9, "baseline": 3, "within_noise": True}},
        {"perplexity": {"ratio": 1.3, "baseline": 3}},  # one window has no interval
        {"answers": asked(0.9, 0.8, within_noise=True)},
        {"kld": kld(0.01, p99=5.0, tokens=20)},  # one token of twenty is no 99th percentile
    ],
)
def test_a_difference_within_noise_is_no_alarm(within: dict) -> None:
    assert judge_quality(FINE | within, {})["raised"] is False


def test_a_witness_alone_raises_nothing_and_is_named_beside_others() -> None:
    assert judge_quality(FINE | {"top5": 0.5, "repetition": 0.9}, {"repetition": 0.1})["raised"] is False
    alarm = judge_quality(BAD | {"repetition": 0.9}, {"repetition": 0.1})
    assert ("repetition", None) in fallen(alarm)


def test_a_rare_token_that_is_far_off_is_found_behind_a_good_mean() -> None:
    alarm = judge_quality(FINE | {"kld": kld(0.03, 0.01, p99=2.5)}, {})
    assert fallen(alarm) == [("kld_p99", "decode")]


def test_the_shape_that_fell_is_told_and_the_other_contradicts() -> None:
    prefill = {"kld_prefill": kld(0.63, 0.1), **agreement(77, ending="_prefill")}
    alarm = judge_quality(FINE | prefill, {})
    assert fallen(alarm) == [("kld", "prefill"), ("top1", "prefill")]
    assert {"steady": "kld", "fell": "kld", "shape": "prefill"} in alarm["disagree"]


def test_one_metric_can_lie_is_said_in_both_directions() -> None:
    steady = judge_quality(BAD | {"answers": asked(0.9, 0.88, within_noise=True)}, {})
    assert {"steady": "answers", "fell": "perplexity", "shape": None} in steady["disagree"]
    unchanged = {"ratio": 1.0, "low": 0.99, "high": 1.01, "baseline": 3, "within_noise": True}
    lost = judge_quality(FINE | {"cloze": asked(0.5, 0.1, within_noise=False), "perplexity": unchanged}, {})
    assert fallen(lost) == [("cloze", None)]
    assert lost["disagree"] == [{"steady": "perplexity", "fell": "cloze", "shape": None}]


def test_what_is_not_a_number_is_the_loudest_alarm() -> None:
    broken = {"mean": math.nan, "low": math.nan, "high": math.nan, "p99": math.nan, "tokens": 9}
    alarm = judge_quality(BAD | {"kld": broken}, {})
    assert fallen(alarm)[0] == ("kld", "decode")


@given(st.lists(st.floats(0, 0.09), min_size=2, max_size=60), st.integers(2, 60))
def test_a_text_that_stays_under_every_limit_never_raises(values: list[float], right: int) -> None:
    mean, low, high = mean_interval(values)
    entry = {"kld": percentiles(values) | {"tokens": len(values), "low": low, "high": high}, **agreement(right, right)}
    assert mean < KLD
    assert judge_quality(entry, {})["raised"] is False
