"""The verdict: what a race showed, with its intervals, as plain data. Sentences are made in `ui/words.py`.

    {"lanes": {name: {
        "label", "simulated": bool, "effects": [...], "failed": bool,
        "tokens_per_s", "tpot_s", "ttft_s", "e2e_s": {"mean", "p50", "p95", "p99", "max"}, "itl_s": {...},
        "speed": {"ratio", "low", "high", "pairs", "within_noise"},    tokens a second, variant / baseline (> 1 faster)
        "ttft_ratio": {... the same, baseline / variant},
        "memory": {"ratio", "bytes", "baseline_bytes"},                 held: weights + KV, baseline / variant
        "peak_ratio",
        "kld": {"mean", "p50", "p95", "p99", "max", "tokens"}, "kld_prefill": {...}, "top1", "top1_prefill",
        "perplexity": {"value", "baseline", "ratio", "low", "high", "within_noise", "protocol"},
        "answers": {"right", "asked", "share", "baseline_share", "p", "within_noise", "by_kind"},
        "identical_tokens": int, "first_divergence": int | None, "rouge_l": float,
        "cost_per_million": float,
        "speculation": {"acceptance_rate", "alpha" (accepted / tried), "mean_acceptance_length", "draft_cost_share",
                        "break_even" (the alpha below which drafting loses), "pays"},
        "linear_share": float}},                                        measured share of a step in linear layers
     "measured": "requests" | "race",    whether the figures come from the measurement or only from the race
     "notes": [str]}

The baseline's entry is "base" and has no ratios. Keys are absent where nothing was measured.
"""

from __future__ import annotations

import math
from typing import Any

from backend.metrics import Request, changed_answers_p, cost_per_million, mean_interval, paired_ratio, percentiles
from backend.recipe.race import Race
from backend.replay import LaneView, RaceView, Scores
from backend.speculation import break_even


def build_verdict(view: RaceView, race: Race) -> dict[str, Any]:
    """Everything that the finished race allows to say."""
    base = view.baseline
    measured = bool(base and base.requests)
    recipes = dict(race.lanes)
    lanes = {}
    for name, lane in view.lanes.items():
        entry = _own(lane, race) | {"simulated": recipes[name].simulated}
        if base is not None and lane is not base and not lane.failure:
            entry |= _against(view, lane, base)
        lanes[name] = entry
    notes = [] if measured else ["Speeds are those of the race: nothing was measured after it."]
    return {"lanes": lanes, "measured": "requests" if measured else "race", "notes": notes}


def requests_of(lane: LaneView) -> list[Request]:
    """A lane's measured requests, in order."""
    return [Request(tuple(data["emitted_s"])) for data in lane.requests]


def _own(lane: LaneView, race: Race) -> dict[str, Any]:
    """What can be said of a lane by itself."""
    entry: dict[str, Any] = {
        "label": lane.label,
        "failed": lane.failure is not None,
        "effects": lane.receipt.get("effects", []),
    }
    requests = requests_of(lane)
    if requests:
        entry["tokens_per_s"] = percentiles([r.tokens_per_s for r in requests])["p50"]
        entry["tpot_s"] = percentiles([r.tpot_s for r in requests])["p50"]
        entry["ttft_s"] = percentiles([r.ttft_s for r in requests])["p50"]
        entry["e2e_s"] = percentiles([r.e2e_s for r in requests])
        gaps = [gap for r in requests for gap in r.itl_s]
        if gaps:
            entry["itl_s"] = percentiles(gaps)
    elif lane.tokens_per_s:
        entry |= {"tokens_per_s": lane.tokens_per_s, "tpot_s": 1 / lane.tokens_per_s, "ttft_s": lane.ttft_s}
    if entry.get("tokens_per_s"):
        entry["cost_per_million"] = cost_per_million(entry["tokens_per_s"], race.price_per_hour)
    if lane.speculation:
        entry["speculation"] = _speculation(lane)
    if lane.breakdown.get("linear_share") is not None:
        entry["linear_share"] = lane.breakdown["linear_share"]
    return entry


def _speculation(lane: LaneView) -> dict[str, Any]:
    """Acceptance and cost, and the acceptance rate below which drafting costs more than it saves."""
    seen = lane.speculation
    facts = {
        "acceptance_rate": seen["acceptance_rate"],
        "alpha": seen["alpha"],
        "mean_acceptance_length": seen["mean_acceptance_length"],
        "draft_cost_share": seen["draft_cost_share"],
    }
    plain = lane.breakdown.get("plain_step_s")
    if plain and seen["rounds"] and seen["drafted"]:
        draft_cost = seen["draft_s"] / seen["drafted"] / plain
        verify_cost = seen["verify_s"] / seen["rounds"] / plain
        width = max(1, round(seen["drafted"] / seen["rounds"]))
        facts["break_even"] = break_even(width, draft_cost, verify_cost)
        facts["pays"] = seen["alpha"] > facts["break_even"]
    return facts


def _against(view: RaceView, lane: LaneView, base: LaneView) -> dict[str, Any]:
    """What can be said of a variant beside the baseline."""
    entry: dict[str, Any] = _speed(lane, base)
    if lane.memory and base.memory:
        ours, theirs = (m["weights_bytes"] + m["kv_bytes"] for m in (lane.memory, base.memory))
        entry["memory"] = {"ratio": theirs / ours, "bytes": ours, "baseline_bytes": theirs}
        if lane.memory["peak_bytes"] and base.memory["peak_bytes"]:
            entry["peak_ratio"] = base.memory["peak_bytes"] / lane.memory["peak_bytes"]
    for key, agreement, scores in (("kld", "top1", lane.decode), ("kld_prefill", "top1_prefill", lane.prefill)):
        if scores.kld:
            entry[key] = _kld(scores)
            entry[agreement] = scores.agreement
    if lane.perplexity.get("sums") and base.perplexity.get("sums"):
        entry["perplexity"] = _perplexity(lane, base)
    if lane.answers and base.answers:
        entry["answers"] = _answers(lane, base)
    first = view.divergence(lane)
    entry["first_divergence"] = first
    entry["identical_tokens"] = min(len(lane.ids), len(base.ids)) if first is None else first
    if lane.rouge_l is not None:
        entry["rouge_l"] = lane.rouge_l
    return entry


def _speed(lane: LaneView, base: LaneView) -> dict[str, Any]:
    pairs = list(zip(requests_of(lane), requests_of(base), strict=False))
    if not pairs:
        ours, theirs = lane.tokens_per_s, base.tokens_per_s
        return {"speed": {"ratio": ours / theirs, "pairs": 0}} if ours and theirs else {}
    speed = paired_ratio([b.tpot_s for _, b in pairs], [v.tpot_s for v, _ in pairs])
    ttft = paired_ratio([b.ttft_s for _, b in pairs], [v.ttft_s for v, _ in pairs])
    return {"speed": speed.as_dict(), "ttft_ratio": ttft.as_dict()}


def _kld(scores: Scores) -> dict[str, Any]:
    return percentiles(scores.kld) | {"tokens": len(scores.kld)}


def _perplexity(lane: LaneView, base: LaneView) -> dict[str, Any]:
    """Perplexities and their ratio, with an interval over the windows that both have read."""
    ours, theirs = lane.perplexity, base.perplexity
    gaps = [
        a / n - b / n
        for a, b, n in zip(ours["sums"], theirs["sums"], ours["counts"], strict=False)  # nats a token, a window each
    ]
    ratio = ours["value"] / theirs["value"]
    entry = {"value": ours["value"], "baseline": theirs["value"], "ratio": ratio, "protocol": ours["protocol"]}
    if len(gaps) > 1:
        _, low, high = mean_interval(gaps)
        entry |= {"low": math.exp(low), "high": math.exp(high), "within_noise": low <= 0 <= high}
    return entry


def _answers(lane: LaneView, base: LaneView) -> dict[str, Any]:
    p = changed_answers_p(base.answers["marks"], lane.answers["marks"])
    return {
        "right": lane.answers["right"],
        "asked": lane.answers["asked"],
        "share": lane.answers["right"] / lane.answers["asked"],
        "baseline_share": base.answers["right"] / base.answers["asked"],
        "by_kind": lane.answers["by_kind"],
        "p": p,
        "within_noise": p > 0.05,
    }
