"""The verdict on encoders: paired speeds by size of the call, and what the vectors are still worth. Plain data.

    {"lanes": {name: {
        "label", "failed", "simulated", "effects": [...], "no_effect": [kind],
        "sizes": {size: {"sentences_per_s", "call_s": {mean, p50, p95, p99, max}, "rounds",
                         "speed": {"ratio", "low", "high", "pairs", "within_noise"},   sentences a second, > 1 faster
                         "worth": {...}}},                  see backend/encodingview.py's event of that name
        "memory": {"ratio", "bytes", "baseline_bytes"},     of the weights, baseline / variant
        "peak_bytes", "peak_ratio"}},
     "measurement": {"rounds", "left_out", "sentences", "tokens_per_sentence", "seconds"},
     "suspicions": [str], "notes": [str]}

Sizes are keys in text, as JSON has them. Keys are absent where nothing was measured.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from backend.encodingview import EncodingLane, EncodingView
from backend.eventview import head_of_verdict
from backend.metrics import Ratio, paired_ratio, percentiles
from backend.recipe.race import Race
from backend.suspicion import suspicions
from backend.warmup import rounds_note, steady_from

Key = tuple[int, int]  # round, size


@dataclass(frozen=True)
class Encoded:
    """The rounds that count, by lane and (round, size)."""

    rounds: int
    left_out: int
    lanes: dict[str, dict[Key, dict[str, Any]]]

    def of(self, lane: str, size: int) -> dict[int, dict[str, Any]]:
        """A lane's rounds of one size, by round."""
        return {turn: data for (turn, asked), data in sorted(self.lanes.get(lane, {}).items()) if asked == size}

    def ratio(self, lane: str, size: int) -> Ratio | None:
        """Sentences a second against the baseline's of the same round; None without a pair."""
        ours, theirs = self.of(lane, size), self.of("base", size)
        both = [turn for turn in ours if turn in theirs]
        if not both:
            return None
        return paired_ratio([_speed(ours[turn]) for turn in both], [_speed(theirs[turn]) for turn in both])

    def log_ratios(self, lane: str, size: int) -> list[float]:
        """log of the same ratio, round by round."""
        ours, theirs = self.of(lane, size), self.of("base", size)
        return [math.log(_speed(ours[turn]) / _speed(theirs[turn])) for turn in ours if turn in theirs]

    def base_logs(self, size: int) -> list[float]:
        """log seconds a sentence of the baseline, round by round."""
        return [-math.log(_speed(data)) for data in self.of("base", size).values()]


def encoded(view: EncodingView) -> Encoded:
    """The rounds of a race that count: those after the latest change-point of any lane and size."""
    lanes = {
        name: {(data["round"], data["size"]): data for data in lane.encoded}
        for name, lane in view.lanes.items()
        if lane.encoded
    }
    rounds = sorted({turn for found in lanes.values() for turn, _ in found})
    everything = Encoded(len(rounds), 0, lanes)
    settled = [
        steady_from([1 / _speed(data) for data in everything.of(name, size).values()])
        for name in lanes
        for size in view.sizes
    ]
    left_out = max(settled, default=0)
    begun = set(rounds[:left_out])
    kept = {name: {key: data for key, data in found.items() if key[0] not in begun} for name, found in lanes.items()}
    return Encoded(len(rounds), left_out, kept)


def _speed(data: dict[str, Any]) -> float:
    """Sentences a second."""
    return float(data["sentences"] / sum(data["call_s"]))


def build_verdict(view: EncodingView, race: Race) -> dict[str, Any]:
    """Everything that the finished race allows to say."""
    seen, recipes = encoded(view), dict(race.lanes)
    lanes = {name: _own(view, lane, recipes[name].simulated, seen) for name, lane in view.lanes.items()}
    base = view.lanes.get("base")
    for name, lane in view.lanes.items():
        if base is not None and lane is not base and not lane.failure:
            lanes[name] |= _against(lane, base)
    largest = max(view.sizes, default=0)
    drifts = {name: seen.log_ratios(name, largest) for name in seen.lanes if name != "base"}
    return {
        "lanes": lanes,
        "measurement": _measurement(view, seen, largest),
        "suspicions": suspicions(view.conditions, drifts, seen.base_logs(largest)),
        "notes": [_note(seen)],
    }


def _measurement(view: EncodingView, seen: Encoded, size: int) -> dict[str, Any]:
    one = next(iter(seen.of("base", size).values()), None)
    return {
        "rounds": seen.rounds,
        "left_out": seen.left_out,
        "sentences": one and one["sentences"],
        "tokens_per_sentence": one and one["tokens"] / one["sentences"],
        "seconds": view.conditions.get("seconds"),
    }


def _note(seen: Encoded) -> str:
    if not seen.rounds:
        return "Speed was not measured."
    return rounds_note(seen.rounds, seen.left_out)


def _own(view: EncodingView, lane: EncodingLane, simulated: bool, seen: Encoded) -> dict[str, Any]:
    """What can be said of a lane by itself, and the paired speed beside each size."""
    entry = head_of_verdict(lane, simulated)
    entry["sizes"] = {str(size): _at(lane, size, seen) for size in view.sizes}
    if lane.encoded:
        entry["peak_bytes"] = max(data["peak_bytes"] for data in lane.encoded)
    return entry


def _at(lane: EncodingLane, size: int, seen: Encoded) -> dict[str, Any]:
    """One size of the call."""
    found = seen.of(lane.name, size)
    entry: dict[str, Any] = {}
    if found:
        entry = {
            "sentences_per_s": statistics.median(_speed(data) for data in found.values()),
            "call_s": percentiles([spent for data in found.values() for spent in data["call_s"]]),
            "rounds": len(found),
        }
    ratio = None if lane.name == "base" or lane.failure else seen.ratio(lane.name, size)
    if ratio is not None:
        told = ratio.as_dict()
        entry["speed"] = told if ratio.pairs > 1 else {key: told[key] for key in ("ratio", "pairs", "within_noise")}
    if size in lane.worth:
        entry["worth"] = lane.worth[size]
    return entry


def _against(lane: EncodingLane, base: EncodingLane) -> dict[str, Any]:
    """Memory beside the baseline's."""
    entry: dict[str, Any] = {}
    if lane.memory and base.memory:
        ours, theirs = lane.memory["weights_bytes"], base.memory["weights_bytes"]
        entry["memory"] = {"ratio": theirs / ours, "bytes": ours, "baseline_bytes": theirs}
    if lane.encoded and base.encoded:
        peaks = [max(data["peak_bytes"] for data in one.encoded) for one in (lane, base)]
        if all(peaks):
            entry["peak_ratio"] = peaks[1] / peaks[0]
    return entry
