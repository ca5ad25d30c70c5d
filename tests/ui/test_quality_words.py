"""The alarm and the budget in words."""

from __future__ import annotations

from backend.budget import judge_budget
from backend.recipe.race import Budget
from backend.ui.quality_words import alarm_line, budget_line, contradictions, quality_lines


def fall(metric: str, value: float, limit: float, shape: str | None = None, baseline: float | None = None) -> dict:
    return {"metric": metric, "shape": shape, "value": value, "limit": limit, "baseline": baseline, "times_over": 2}


ALARM = {
    "raised": True,
    "fell": [
        fall("kld", 0.27, 0.1, "decode"),
        fall("top1", 0.71, 0.9, "decode"),
        fall("perplexity", 1.9, 1.1, baseline=27.5),
        fall("answers", 0.5, 0.02, baseline=0.94),
    ],
    "disagree": [
        {"steady": "answers", "fell": "kld", "shape": "decode"},
        {"steady": "perplexity", "fell": "cloze", "shape": None},
        {"steady": "kld", "fell": "kld", "shape": "prefill"},
    ],
}


def test_the_alarm_names_what_fell_and_by_how_much() -> None:
    assert alarm_line({"alarm": ALARM}) == (
        "Quality alarm: decode KLD 0.270 (over 0.100), decode top-1 agreement 71% (under 90%), "
        "perplexity 1.90x the baseline's (over 1.10x), exact match 94% to 50%."
    )
    assert alarm_line({"alarm": {"raised": False, "fell": [], "disagree": []}}) == ""
    assert alarm_line({}) == ""


def test_contradictions_are_said() -> None:
    assert contradictions({"alarm": ALARM}) == [
        "Exact match is unchanged, yet decode KLD is high: one metric can lie.",
        "Perplexity is unchanged, yet last-word cloze fell: one metric can lie.",
        "KLD is within its limit in decode, yet prefill KLD is high: the call's shape decides.",
    ]


ENTRY = {
    "kld": {"mean": 0.27},
    "top1": 0.71,
    "perplexity": {"ratio": 1.08, "low": 1.01, "high": 1.15, "baseline": 3.0},
    "answers": {"share": 0.9, "baseline_share": 0.94, "within_noise": False},
}


def line(**limits: float) -> str:
    return budget_line({"budget": judge_budget(ENTRY, Budget(**limits))})


def test_a_budget_passes_fails_or_is_not_judged_in_words() -> None:
    assert line(kld=0.01) == "fail: decode KLD 0.270 is over the budget of 0.0100."
    assert line(top1=0.9) == "fail: decode top-1 agreement 71.0% is under the budget of 90.0%."
    assert line(kld=0.3) == "pass: decode KLD 0.270, 0.300 allowed."
    assert line(perplexity_ratio=1.05) == "pass: perplexity 1.08x is over the budget of 1.05x, but within noise."
    assert line(accuracy_points=2) == "fail: exact match lost 4.00 points (94% to 90%), over the budget of 2.00."
    assert budget_line({"budget": judge_budget({"top1": 1.0}, Budget(kld=0.1))}) == "not judged: KLD was not measured."
    assert budget_line({}) == ""


def test_the_budget_stands_before_the_alarm() -> None:
    told = quality_lines({"alarm": ALARM, "budget": judge_budget(ENTRY, Budget(kld=0.01))})
    assert told[0].startswith("fail:")
    assert told[1].startswith("Quality alarm:")
