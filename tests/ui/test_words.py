"""Sentences and figures."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from backend.ui import figures, words
from backend.ui.text import plain, short

BASE = {"tokens_per_s": 100.0}
WON = {
    "speed": {"ratio": 1.7234, "low": 1.69, "high": 1.75, "pairs": 8, "within_noise": False},
    "memory": {"ratio": 2.87, "bytes": 1, "baseline_bytes": 2},
    "answers": {"share": 0.93, "baseline_share": 0.94, "within_noise": True},
    "tokens_per_s": 172.3,
    "first_divergence": None,
    "identical_tokens": 128,
}


def test_the_headline_says_how_much_and_how_sure() -> None:
    told = words.headline("A", WON)
    assert told == "A is 1.72x faster (1.69 to 1.75), 2.87x smaller, and answers as well (94% to 93%, within noise)."


def test_losing_is_said_as_plainly_as_winning() -> None:
    draft = {"alpha": 0.31, "break_even": 0.55, "pays": False, "acceptance_rate": 0.4}
    lost = {"speed": {"ratio": 0.8, "low": 0.78, "high": 0.82, "pairs": 8}, "speculation": draft}
    told = words.sentences("A", lost, BASE)
    assert told[0] == "A is 0.800x: slower (0.780 to 0.820)."
    assert told[1] == "The draft cost more than it saved (accepted 31% of the guesses it tried, break-even 55%)."


def test_what_theory_predicts_stands_beside_what_was_measured() -> None:
    draft = {"acceptance_rate": 0.5, "speedup_predicted": 1.52, "speedup_measured": 1.47}
    assert words.speculation_line({"speculation": draft}).endswith(
        "theory predicts 1.52x of its plain steps from this, and the race gave 1.47x."
    )


def test_a_pane_says_what_its_guesses_come_to() -> None:
    draft = {"drafted": 8, "tried": [4, 2, 0], "by_place": [2, 2, 0], "draft_cost_share": 0.3}
    line = words.drafting_line(draft | {"mean_acceptance_length": 2.0})
    assert line == "kept by place 50 100% · 2.00 tokens a round · guessing 30% of the time"
    assert words.drafting_line({}) == ""
    assert words.drafting_line({"drafted": 0}) == "no guesses so far"


def test_noise_is_called_noise() -> None:
    speed = {"ratio": 1.004, "low": 0.99, "high": 1.018, "pairs": 8, "within_noise": True}
    told = words.headline("A", {"speed": speed})
    assert told == "A is as fast as the baseline, 1.00x (0.990 to 1.02, within noise)."


def test_an_interval_too_wide_claims_nothing() -> None:
    speed = {"ratio": 3.08, "low": 0.04, "high": 267.0, "pairs": 4, "within_noise": True}
    told = words.headline("A", {"speed": speed})
    assert told == "A cannot be told from the baseline in speed, so noisy was it: 3.08x (0.0400 to 267)."


def test_few_questions_are_no_proof_of_equal_answers() -> None:
    answers = {"share": 0.79, "baseline_share": 1.0, "within_noise": True}
    assert words.headline("A", {"answers": answers}) == "A may answer worse (100% to 79%, too few questions to tell)."
    close = answers | {"share": 0.96}
    assert words.headline("A", {"answers": close}) == "A answers as well (100% to 96%, within noise)."


def test_a_simulated_number_wears_its_word_everywhere() -> None:
    lane = WON | {"simulated": True, "effects": [{"summary": "zeros", "took_effect": True, "simulated": True}]}
    assert "(speed and memory simulated)" in words.headline("A", lane)
    assert "zeros (simulated)" in words.took_effect(lane["effects"])
    assert "(simulated)" in words.cost_line(lane, BASE, 0.5)


def test_what_took_effect_and_what_was_left_is_said() -> None:
    effects = [
        {"summary": "57 layers int8", "took_effect": True, "skipped": [{"layer": "norm", "reason": "by design"}]},
        {"summary": "compilation failed", "took_effect": False},
    ]
    told = words.sentences("A", WON | {"effects": effects}, BASE)
    assert "Took effect: 57 layers int8." in told  # what did not is an alarm of its own
    assert "Not: norm (by design)." in told


def test_cost_follows_the_price() -> None:
    assert words.cost_line(WON, BASE, 0.5) == "At $0.50 an hour: $1.39 to $0.81 per million tokens."
    assert words.cost_line({}, BASE, 0.5) == ""


def test_a_race_with_nothing_measured_has_no_verdict_to_boast_of() -> None:
    assert words.sentences("A", {}, {}) == ["A: nothing was measured to the end, so there is no verdict."]
    assert words.sentences("A", {"failed": True}, {}) == ["A failed, so there is no verdict on it."]


def test_a_phase_is_one_line_with_the_time_left() -> None:
    phase = {"name": "racing", "done": 45, "total": 128, "eta_s": 3.2}
    assert words.phase_line(phase) == "racing: 45 of 128 tokens, 3 s left"
    phase = {"name": "measuring", "done": 2.53, "total": 12.0, "eta_s": None, "text": "round 3"}
    assert words.phase_line(phase) == "measuring: 2.53 of 12 s, round 3"
    assert words.phase_line({"name": "loading", "done": 0, "total": 0}) == "loading"


def test_turn_counts_the_races_before() -> None:
    assert words.turn(2) == "2 races before yours."
    assert words.turn(1) == "1 race before yours."


@given(st.floats(1e-6, 1e12, exclude_max=True))
def test_three_digits_stay_within_half_a_percent(value: float) -> None:
    told = figures.three(value)
    assert abs(float(told.replace(",", "")) - value) <= 0.0051 * value
    assert len(told.replace(",", "").replace(".", "").strip("0")) <= 3
    assert "e" not in told


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_is_too_odd_to_be_told(value: float) -> None:
    for tell in (figures.three, figures.ratio, figures.size, figures.seconds, figures.share, figures.money):
        assert tell(value)
    if not math.isfinite(value):
        assert figures.three(value) == "unknown"


def test_units() -> None:
    assert figures.size(103_000_000) == "103 MB"
    assert figures.size(999_999) == "1.00 MB"
    assert figures.seconds(0.34) == "340 ms"
    assert figures.seconds(200) == "3 min 20 s"
    assert figures.share(0.004) == "0.400%"
    assert figures.count(25_700_000) == "25.7M"
    assert figures.interval(0.5, math.inf) == "(no interval: one pair only)"


@given(st.text())
def test_markup_is_escaped_and_nothing_is_lost(text: str) -> None:
    told = plain(text)
    for mark in "*_`[<$:":
        assert told.count(mark) == told.count("\\" + mark)
    assert len(short(text, 20)) <= 20


def test_a_ratio_within_noise_is_equal_only_where_its_interval_is_narrow() -> None:
    assert words.undecided({"within_noise": False, "low": 1.1, "high": 1.2}, "too noisy") == ""
    assert words.undecided({"within_noise": True, "low": 0.97, "high": 1.02}, "too noisy") == ", within noise"
    assert (
        words.undecided({"within_noise": True, "low": 0.001, "high": 800.0}, "too few windows")
        == ", too few windows to tell"
    )
    assert words.undecided({"within_noise": True}, "too noisy") == ", within noise"
