"""The quality budget: pass, fail, and what cannot be judged."""

from __future__ import annotations

import pytest

from backend.budget import judge_budget
from backend.recipe.base import RecipeError
from backend.recipe.race import Budget, Race


def entry(**changes: object) -> dict:
    return {
        "kld": {"mean": 0.02},
        "kld_prefill": {"mean": 0.3},
        "top1": 0.95,
        "top1_prefill": 0.8,
        "perplexity": {"ratio": 1.08, "low": 1.01, "high": 1.15, "baseline": 3.0},
        "cloze": {"share": 0.4, "baseline_share": 0.5, "within_noise": False},
    } | changes


def test_no_limit_is_no_budget() -> None:
    assert judge_budget(entry(), Budget()) is None


def test_kld_must_keep_the_limit_in_every_shape() -> None:
    found = judge_budget(entry(), Budget(kld=0.1))
    assert found["verdict"] == "fail"
    assert [(check["shape"], check["passes"]) for check in found["checks"]] == [("decode", True), ("prefill", False)]
    assert judge_budget(entry(), Budget(kld=0.3))["verdict"] == "pass"


def test_top1_must_not_fall_below_its_limit() -> None:
    assert judge_budget(entry(), Budget(top1=0.8))["verdict"] == "pass"
    assert judge_budget(entry(), Budget(top1=0.81))["verdict"] == "fail"


def test_perplexity_fails_only_where_the_whole_interval_is_over() -> None:
    within = judge_budget(entry(), Budget(perplexity_ratio=1.05))
    assert within["verdict"] == "pass"
    assert within["checks"][0]["over"] is True
    assert within["checks"][0]["within_noise"] is True
    assert judge_budget(entry(), Budget(perplexity_ratio=1.005))["verdict"] == "fail"
    single = {"ratio": 1.08, "baseline": 3.0}
    assert judge_budget(entry(perplexity=single), Budget(perplexity_ratio=1.05))["verdict"] == "fail"


@pytest.mark.parametrize(
    ("share", "within_noise", "limit", "verdict"),
    [
        (0.4, False, 2, "fail"),
        (0.4, True, 2, "pass"),  # ten points, but no more than chance
        (0.4, False, 10, "pass"),  # exactly as much as is allowed
        (0.6, False, 0, "pass"),  # better is never over
    ],
)
def test_accuracy_counts_points_beyond_noise(share: float, within_noise: bool, limit: float, verdict: str) -> None:
    cloze = {"share": share, "baseline_share": 0.5, "within_noise": within_noise}
    assert judge_budget(entry(cloze=cloze), Budget(accuracy_points=limit))["verdict"] == verdict


def test_a_limit_on_what_was_not_measured_is_not_judged_but_another_may_fail() -> None:
    bare = {"kld": {"mean": 0.02}}
    found = judge_budget(bare, Budget(accuracy_points=2, kld=0.1))
    assert found["verdict"] == "not judged"
    assert found["missing"] == ["accuracy_points"]
    assert judge_budget(bare, Budget(accuracy_points=2, kld=0.01))["verdict"] == "fail"


def test_a_mistake_in_a_budget_names_its_field() -> None:
    for budget, field in (({"kld": -1}, "budget.kld"), ({"speed": 1}, "budget.speed"), ({"top1": 2}, "budget.top1")):
        with pytest.raises(RecipeError) as caught:
            Race.read({"prompt": "Once", "variants": [{}], "budget": budget})
        assert caught.value.field == field
