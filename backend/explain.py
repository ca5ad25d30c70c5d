"""The explained result: from what a step must take to what it took, in bars that add up, and the reason in words.

Each bar is seconds of one step, computed from measured parts (engine/breakdown.py):

    weights      bytes of the matrices / bandwidth measured with plain reads of as many bytes, or no more than it took
    kv           bytes of the KV cache / the same bandwidth, or no more than attention took
    arithmetic   in prefill: operations / operations a second measured with a plain product, less what reads hide
    kernels      the rest of the time inside layers that multiply by a matrix: what their kernels fall short by
    unchanged    attention itself, norms, cache, embedding, sampling: what the choice does not make cheaper
    overhead     calls x measured cost of a call that computes nothing, and the Python between the parts
    unexplained  the measured step less all of these; it may be negative

`reason` is one of REASONS: what keeps the step from being faster.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

REASONS = ("simulated", "slow layer", "compute", "bandwidth", "kernels", "unchanged parts", "overhead", "unexplained")
GLUE = ("python", "compiled")
SLOW = 2.5  # times the median layer
TELLING = 0.1  # share of a step


@dataclass(frozen=True)
class Explanation:
    """Bars in seconds that add up to `measured_s`, and what holds the step back."""

    bars: dict[str, float]
    measured_s: float
    reason: str
    evidence: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def explain(facts: dict[str, Any], phase: str, measured_s: float | None, simulated: bool = False) -> Explanation | None:
    """Explain one lane's step in one phase.

    Args:
        facts: the lane's breakdown.
        phase: 'decode' or 'prefill'.
        measured_s: the step as the measurement after the race found it; without it the breakdown's own.
        simulated: whether the recipe claims what no kernel uses.
    """
    part = facts.get(phase)
    if not part or not part["parts"] or "compiled" in part["parts"]:
        return None
    measured = measured_s or part["step_s"]
    bars = _bars(facts, part)
    bars["unexplained"] = measured - sum(bars.values())
    evidence = _evidence(facts, part, bars, measured)
    return Explanation(bars, measured, _reason(bars, evidence, measured, simulated), evidence)


def _bars(facts: dict[str, Any], part: dict[str, Any]) -> dict[str, float]:
    call, bandwidth = facts["call_s"], facts["bandwidth_bytes_per_s"]
    linear, total = sum(part["linear"].values()), sum(part["parts"].values())
    glue = sum(part["parts"].get(name, 0.0) for name in GLUE)
    others = total - linear - glue
    linear_floor = min(linear, call * part["linear_calls"])
    glue_calls = sum(part["calls"].get(name, 0) for name in GLUE)
    other_floor = min(others, call * (sum(part["calls"].values()) - part["linear_calls"] - glue_calls))
    weights = min(linear - linear_floor, part["weights_bytes"] / bandwidth)
    kv = min(others - other_floor, part["kv_bytes"] / bandwidth) if "tokens" not in part else 0.0
    arithmetic = min(linear - linear_floor, max(0.0, part["flops"] / facts["flops_per_s"] - weights))
    arithmetic = arithmetic if part.get("tokens", 1) > 1 else 0.0
    arithmetic = min(arithmetic, linear - linear_floor - weights)
    return {
        "weights": weights,
        "kv": kv,
        "arithmetic": arithmetic,
        "kernels": linear - linear_floor - weights - arithmetic,
        "unchanged": others - other_floor - kv,
        "overhead": glue + linear_floor + other_floor,
    }


def _evidence(facts: dict[str, Any], part: dict[str, Any], bars: dict[str, float], measured: float) -> dict[str, float]:
    linear = sum(part["linear"].values())
    middle = sorted(part["layers"])[len(part["layers"]) // 2] if part["layers"] else 0.0
    slowest = max(range(len(part["layers"])), key=lambda at: part["layers"][at], default=0)
    evidence = {
        "bandwidth_bytes_per_s": facts["bandwidth_bytes_per_s"],
        "weights_bytes": part["weights_bytes"],
        "calls": sum(part["calls"].values()),
        "reached": part["weights_bytes"] / linear / facts["bandwidth_bytes_per_s"] if linear else 0.0,
        "flops_reached": part["flops"] / linear / facts["flops_per_s"] if linear else 0.0,
        "step_s": part["step_s"],
    }
    if middle and len(part["layers"]) > 2:
        evidence |= {"slowest_layer": slowest, "times_median": part["layers"][slowest] / middle}
        evidence["slowest_share"] = (part["layers"][slowest] - middle) / measured
    return evidence


def _reason(bars: dict[str, float], evidence: dict[str, float], measured: float, simulated: bool) -> str:
    if simulated:
        return "simulated"
    if evidence.get("times_median", 0) > SLOW and evidence["slowest_share"] > TELLING:
        return "slow layer"
    groups = {
        "bandwidth": bars["weights"] + bars["kv"],
        "compute": bars["arithmetic"],
        "kernels": bars["kernels"],
        "unchanged parts": bars["unchanged"],
        "overhead": bars["overhead"],
        "unexplained": abs(bars["unexplained"]),
    }
    return max(groups, key=groups.__getitem__)
