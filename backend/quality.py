"""Quality of a lane, by itself and beside the baseline, as entries of the verdict. Pure.

By itself:   "repetition": share of 4-grams that stood before in its own text; "length": tokens until the end-of-text
             token, only where the race stops at it and the lane came to it
Beside:      "kld", "kld_prefill": {"mean", "p50", "p95", "p99", "max", "tokens", "low", "high"}, nats; the interval is
             Student's t over tokens
             "top1", "top1_prefill": share of tokens; "top1_range", "top1_prefill_range": {"low", "high"}, Wilson's
             "top5", "top5_prefill": mean share of the baseline's five likeliest tokens among the variant's five
             "perplexity": {"value", "baseline", "ratio", "low", "high", "within_noise", "protocol"}
             "answers", "cloze": {"right", "asked", "share", "baseline_share", "p", "within_noise", "protocol",
             "by_kind"}, p of McNemar's exact test over the same items
             "rouge_l", "first_divergence": place of the first token that differs | None, "identical_tokens"
"""

from __future__ import annotations

import math
from typing import Any

from backend.metrics import changed_answers_p, mean_interval, percentiles, repetition_rate, share_interval
from backend.recipe.race import Race
from backend.replay import LaneView, RaceView, Scores

NOISE_P = 0.05
SHAPES = (("decode", ""), ("prefill", "_prefill"))  # shape, ending of its keys


def own_quality(lane: LaneView, race: Race) -> dict[str, Any]:
    """What a lane's text says by itself."""
    entry: dict[str, Any] = {}
    if (rate := repetition_rate(lane.ids)) is not None:
        entry["repetition"] = rate
    if race.stop_at_end and 0 < len(lane.ids) < race.max_new_tokens and lane.failure is None:
        entry["length"] = len(lane.ids)
    return entry


def quality_against(view: RaceView, lane: LaneView, base: LaneView) -> dict[str, Any]:
    """Every metric of a variant beside the baseline that was measured."""
    entry: dict[str, Any] = {}
    for shape, ending in SHAPES:
        entry |= _agreement(lane.decode if shape == "decode" else lane.prefill, ending)
    if lane.perplexity.get("sums") and base.perplexity.get("sums"):
        entry["perplexity"] = _perplexity(lane, base)
    for key, ours, theirs in (("answers", lane.answers, base.answers), ("cloze", lane.cloze, base.cloze)):
        if ours and theirs:
            entry[key] = _asked(ours, theirs)
    first = view.divergence(lane)
    entry["first_divergence"] = first
    entry["identical_tokens"] = min(len(lane.ids), len(base.ids)) if first is None else first
    if lane.rouge_l is not None:
        entry["rouge_l"] = lane.rouge_l
    return entry


def _agreement(scores: Scores, ending: str) -> dict[str, Any]:
    """KLD, top-1 and top-5 in one call shape."""
    if not scores.kld:
        return {}
    kld: dict[str, Any] = percentiles(scores.kld) | {"tokens": len(scores.kld)}
    if len(scores.kld) > 1:
        _, low, high = mean_interval(scores.kld)
        kld |= {"low": max(0.0, low), "high": high}
    entry = {f"kld{ending}": kld, f"top1{ending}": scores.agreement}
    low, high = share_interval(sum(scores.top1), len(scores.top1))
    entry[f"top1{ending}_range"] = {"low": low, "high": high}
    if scores.top5:
        entry[f"top5{ending}"] = scores.top5_agreement
    return entry


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


def _asked(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Items right and wrong, the same for both: questions or last words."""
    p = changed_answers_p(theirs["marks"], ours["marks"])
    entry = {
        "right": ours["right"],
        "asked": ours["asked"],
        "share": ours["right"] / ours["asked"],
        "baseline_share": theirs["right"] / theirs["asked"],
        "p": p,
        "within_noise": p > NOISE_P,
    }
    return entry | {key: ours[key] for key in ("by_kind", "protocol") if key in ours}
