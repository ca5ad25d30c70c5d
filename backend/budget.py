"""The quality budget: what a person allows a change to cost turns the verdict into pass or fail. Pure.

    {"verdict": "pass" | "fail" | "not judged",
     "checks": [{"metric", "shape", "value", "limit", "baseline", "over": bool, "within_noise": bool, "passes": bool}],
     "missing": [metric]}

Rules. KLD and top-1 are means over the very tokens that were scored, so the figure itself must keep the limit, in
decode and in prefill. Perplexity and accuracy stand for text that was not read and questions that were not asked: they
fail only beyond noise, perplexity where the lower end of its 95% interval is over the limit (the ratio itself where
there is no interval), accuracy where more points were lost than allowed and McNemar's exact test gives p of .05 or
less. What is over and within noise passes, and is said to be so. A limit on what was not measured is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from backend.recipe.race import Budget

Entry = dict[str, Any]
SHAPES = (("decode", ""), ("prefill", "_prefill"))


@dataclass(frozen=True)
class Check:
    """One figure beside its limit."""

    metric: str  # 'kld' | 'top1' | 'perplexity' | 'answers' | 'cloze'
    value: float  # accuracy: the variant's share
    limit: float  # accuracy: points of 100
    over: bool  # worse than the limit
    within_noise: bool = False
    shape: str | None = None
    baseline: float | None = None

    @property
    def passes(self) -> bool:
        """Whether the budget is kept, as far as the figure can tell."""
        return not self.over or self.within_noise


def judge_budget(entry: Entry, budget: Budget) -> Entry | None:
    """Judge a variant's entry of the verdict; None where the person set no limit."""
    limits = {name: limit for name, limit in budget.model_dump().items() if limit is not None}
    if not limits:
        return None
    checks: list[Check] = []
    missing = []
    for name, limit in limits.items():
        found = list(_RULES[name](entry, limit))
        checks += found
        if not found:
            missing.append(name)
    failed = any(not check.passes for check in checks)
    verdict = "fail" if failed else "not judged" if missing else "pass"
    rows = [asdict(check) | {"passes": check.passes} for check in checks]
    return {"verdict": verdict, "checks": rows, "missing": missing}


def _kld(entry: Entry, limit: float) -> Iterator[Check]:
    for shape, ending in SHAPES:
        if found := entry.get(f"kld{ending}"):
            yield Check("kld", found["mean"], limit, not found["mean"] <= limit, shape=shape)


def _top1(entry: Entry, limit: float) -> Iterator[Check]:
    for shape, ending in SHAPES:
        if (share := entry.get(f"top1{ending}")) is not None:
            yield Check("top1", share, limit, share < limit, shape=shape)


def _perplexity(entry: Entry, limit: float) -> Iterator[Check]:
    if found := entry.get("perplexity"):
        unsure = found.get("low", found["ratio"]) <= limit
        yield Check("perplexity", found["ratio"], limit, not found["ratio"] <= limit, unsure, None, found["baseline"])


def _accuracy(entry: Entry, limit: float) -> Iterator[Check]:
    for key in ("answers", "cloze"):
        if found := entry.get(key):
            lost = 100 * (found["baseline_share"] - found["share"])
            over = lost > limit + 1e-9
            yield Check(key, found["share"], limit, over, found["within_noise"], None, found["baseline_share"])


_RULES = {"kld": _kld, "top1": _top1, "perplexity_ratio": _perplexity, "accuracy_points": _accuracy}
