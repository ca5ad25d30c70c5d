"""The verdict: what a race showed, with its intervals, as plain data. Sentences are made in `ui/words.py`.

    {"lanes": {name: {
        "label", "simulated": bool, "effects": [...], "failed": bool,
        "no_effect": [kind],                                            switches that were on and changed nothing
        "tokens_per_s", "tpot_s", "ttft_s", "prefill_tokens_per_s",     medians of the requests that count
        "e2e_s": {"mean", "p50", "p95", "p99", "max"}, "itl_s": {...}, "request_peak_bytes", "requests",
        "speed": {"ratio", "low", "high", "pairs", "within_noise"},    tokens a second, variant / baseline (> 1 faster)
        "ttft_ratio": {... the same, baseline / variant},
        "paired": {figure: {... the same}},                            every figure of backend/measured.py, > 1 better
        "kinds": {kind: {figures as above, "paired"}},                 where a mix of prompts was measured
        "memory": {"ratio", "bytes", "baseline_bytes"},                 held: weights + KV, baseline / variant
        "peak_ratio",
        "kld", "top1", "perplexity", "answers", "cloze", ...            quality, see backend/quality.py
        "alarm": {...},                                                 see backend/alarm.py
        "budget": {...},                                                see backend/budget.py
        "cost_per_million": float,
        "speculation": {"acceptance_rate", "alpha" (accepted / tried), "mean_acceptance_length", "draft_cost_share",
                        "by_place", "break_even" (the alpha below which drafting loses), "pays", "speedup_predicted",
                        "speedup_measured"},                            see backend/speculation.py
        "routing": {...},                                               see backend/routing.py
        "explained": {"decode", "prefill"}}},                           see backend/explain.py
     "measured": "requests" | "race",    whether the figures come from the measurement or only from the race
     "measurement": {"rounds", "left_out", "mode", "prompts", "seconds"},
     "suspicions": [str],                see backend/suspicion.py
     "notes": [str]}

The baseline's entry is "base" and has no ratios. Keys are absent where nothing was measured.
"""

from __future__ import annotations

from typing import Any

from backend.alarm import judge_quality
from backend.budget import judge_budget
from backend.eventview import head_of_verdict
from backend.explain import explain
from backend.measured import Measured, measured
from backend.metrics import cost_per_million
from backend.quality import own_quality, quality_against
from backend.recipe.race import Race
from backend.replay import LaneView, RaceView
from backend.speculation import facts_of_drafting
from backend.suspicion import suspicions
from backend.warmup import rounds_note


def build_verdict(view: RaceView, race: Race) -> dict[str, Any]:
    """Everything that the finished race allows to say."""
    base, seen = view.baseline, measured(view)
    recipes = dict(race.lanes)
    lanes = {}
    for name, lane in view.lanes.items():
        entry = _own(lane, race, recipes[name].simulated, seen)
        if base is not None and lane is not base and not lane.failure:
            entry |= _against(view, lane, base, seen)
        lanes[name] = entry
    _judge(lanes, race)
    drifts = {lane.name: seen.log_ratios(lane.name) for lane in view.variants if not lane.failure}
    return {
        "lanes": lanes,
        "measured": "requests" if seen.rounds else "race",
        "measurement": _measurement(view, race, seen),
        "suspicions": suspicions(view.conditions, drifts, seen.base_logs()),
        "notes": [_measured_note(seen)],
    }


def _judge(lanes: dict[str, Any], race: Race) -> None:
    """The alarm, and the budget where one was set, of every variant that was compared."""
    for name, entry in lanes.items():
        if name == "base" or entry["failed"] or "base" not in lanes:
            continue
        if (alarm := judge_quality(entry, lanes["base"])) is not None:
            entry["alarm"] = alarm
        if (budget := judge_budget(entry, race.budget)) is not None:
            entry["budget"] = budget


def _measurement(view: RaceView, race: Race, seen: Measured) -> dict[str, Any]:
    return {
        "rounds": seen.rounds,
        "left_out": seen.left_out,
        "mode": race.measure.prompt_set,
        "prompts": view.prompts,
        "seconds": view.conditions.get("seconds"),
    }


def _measured_note(seen: Measured) -> str:
    """Which rounds count, and why."""
    if not seen.rounds:
        return "Speeds are those of the race: nothing was measured after it."
    return rounds_note(seen.rounds, seen.left_out)


def _own(lane: LaneView, race: Race, simulated: bool, seen: Measured) -> dict[str, Any]:
    """What can be said of a lane by itself."""
    entry = head_of_verdict(lane, simulated)
    entry |= seen.own(lane.name)
    if kinds := seen.kinds():
        entry["kinds"] = {kind: seen.own(lane.name, kind) for kind in kinds}
    if "tpot_s" not in entry and lane.tokens_per_s:
        entry |= {"tokens_per_s": lane.tokens_per_s, "tpot_s": 1 / lane.tokens_per_s, "ttft_s": lane.ttft_s}
    if entry.get("tokens_per_s"):
        entry["cost_per_million"] = cost_per_million(entry["tokens_per_s"], race.price_per_hour)
    if lane.routing.experts:
        entry["routing"] = lane.routing.as_dict()
    if lane.speculation:
        entry["speculation"] = facts_of_drafting(lane.speculation, lane.breakdown.get("plain_step_s"))
    # The parts were measured on the race's own prompt, so only its times can be explained by them.
    entry["explained"] = _explained(lane, entry if race.measure.prompt_set == "one" else {}, simulated)
    return entry | own_quality(lane, race)


def _explained(lane: LaneView, entry: dict[str, Any], simulated: bool) -> dict[str, Any]:
    """Both phases; a drafting lane's plain step is explained by itself, since its emissions come in rounds."""
    found = {
        "decode": explain(lane.breakdown, "decode", None if lane.speculation else entry.get("tpot_s"), simulated),
        "prefill": explain(lane.breakdown, "prefill", entry.get("ttft_s"), simulated),
    }
    return {phase: explanation.as_dict() for phase, explanation in found.items() if explanation}


def _against(view: RaceView, lane: LaneView, base: LaneView, seen: Measured) -> dict[str, Any]:
    """What can be said of a variant beside the baseline."""
    entry: dict[str, Any] = _speed(lane, base, seen)
    if kinds := seen.kinds():
        own = {kind: seen.own(lane.name, kind) for kind in kinds}
        entry["kinds"] = {kind: own[kind] | {"paired": seen.against(lane.name, kind)} for kind in kinds}
    if lane.memory and base.memory:
        ours, theirs = (m["weights_bytes"] + m["kv_bytes"] for m in (lane.memory, base.memory))
        entry["memory"] = {"ratio": theirs / ours, "bytes": ours, "baseline_bytes": theirs}
        if lane.memory["peak_bytes"] and base.memory["peak_bytes"]:
            entry["peak_ratio"] = base.memory["peak_bytes"] / lane.memory["peak_bytes"]
    return entry | quality_against(view, lane, base)


def _speed(lane: LaneView, base: LaneView, seen: Measured) -> dict[str, Any]:
    paired = seen.against(lane.name)
    if "tpot_s" in paired:
        return {"speed": paired["tpot_s"], "ttft_ratio": paired["ttft_s"], "paired": paired}
    ours, theirs = lane.tokens_per_s, base.tokens_per_s
    return {"speed": {"ratio": ours / theirs, "pairs": 0}} if ours and theirs else {}
