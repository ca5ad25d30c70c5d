"""The reasons in words: each names its evidence, and there are never more than three."""

from __future__ import annotations

from typing import Any

import pytest

from backend.explain import REASONS
from backend.ui.waterfall import BARS, in_words
from backend.ui.why import promise, reason, why


def explained(why_: str = "bandwidth", weights_bytes: float = 100e6, **bars: float) -> dict[str, Any]:
    shown = dict.fromkeys(BARS, 0.0) | {"weights": 5e-3, "kernels": 1e-3, "unchanged": 2e-3, "overhead": 2e-3} | bars
    seen = {
        "bandwidth_bytes_per_s": 20e9, "weights_bytes": weights_bytes, "calls": 900, "reached": 0.6,
        "flops_reached": 0.5, "step_s": 10e-3, "slowest_layer": 3, "times_median": 4.2, "slowest_share": 0.4,
    }  # fmt: skip
    return {"bars": shown, "measured_s": sum(shown.values()), "reason": why_, "evidence": seen}


def lane(ratio: float | None, decode: dict[str, Any], prefill: dict[str, Any] | None = None) -> dict[str, Any]:
    speed = {"speed": {"ratio": ratio}} if ratio else {}
    return speed | {"explained": {"decode": decode} | ({"prefill": prefill} if prefill else {})}


def test_a_gain_below_its_promise_is_explained_by_what_was_not_matrices() -> None:
    base = lane(None, explained(weights_bytes=400e6))
    told = promise(lane(1.7, explained(weights_bytes=100e6)), base)
    assert told.startswith("Not 4.00x, as the bytes of its matrices promise: only 60% of the baseline's step")
    assert "20% of the step is" in told


@pytest.mark.parametrize("ratio", [3.9, None])
def test_a_promise_that_was_kept_or_not_measured_needs_no_excuse(ratio: float | None) -> None:
    base = lane(None, explained(weights_bytes=400e6))
    assert promise(lane(ratio, explained(weights_bytes=100e6)), base) == ""
    assert promise({}, base) == ""


@pytest.mark.parametrize("name", REASONS)
@pytest.mark.parametrize("what", ["step", "prefill"])
def test_every_reason_is_one_sentence_with_a_figure(name: str, what: str) -> None:
    told = reason(explained(name, unexplained=-1e-3), what)
    assert told.endswith(".")
    assert any(sign.isdigit() for sign in told)


def test_at_most_three_sentences() -> None:
    base = lane(None, explained(weights_bytes=400e6))
    told = why(lane(1.7, explained(weights_bytes=100e6), explained("compute", arithmetic=20e-3)), base)
    assert len(told) == 3
    assert "prefill" in told[2]
    assert why({}, {}) == []


def test_the_bars_are_told_for_those_who_do_not_see_them() -> None:
    told = in_words(explained())
    assert told.startswith("read weights 5.00 ms; kernels fall short 1.00 ms;")
    assert told.endswith("together 10.0 ms.")
