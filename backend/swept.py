"""The context sweep's view: events folded into curves over the length of a text. Raw numbers: nats, bytes, seconds.

Events of a sweep (kind, lane, data):

    opened           None   versions, hardware, lanes: {name: label}, model
    phase            lane   name, done, total, eta_s|None, text
    context_start    lane   lengths, scored (tokens at the end of each length)
    context_quality  base   length, kv_bytes and loss (nats, of the full cache), caches: [{kld, low, high, most, top1,
                            loss, kv_bytes}], as they were asked for; no loss in old ones  one a length
    context_speed    lane   length, prompt_tokens, step_s, parts, linear {part: s}, see engine/breakdown.py,
                            kv_bytes|None, peak_bytes                                     one a length
    lane_failed      lane   cause, detail, remedy, phase
    failed           None   card
    finished / cancelled    None   wall_s
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.eventview import EventView


@dataclass
class SweptLane:
    """One lane as far as it has been swept."""

    name: str
    label: str = ""
    start: dict[str, Any] = field(default_factory=dict)
    quality: list[dict[str, Any]] = field(default_factory=list)
    speed: list[dict[str, Any]] = field(default_factory=list)
    failure: dict[str, Any] | None = None

    def curve(self, cache: int) -> list[dict[str, Any]]:
        """The points of one cache, shortest first, each with its length."""
        return [point["caches"][cache] | {"length": point["length"]} for point in self.quality]


@dataclass
class SweepView(EventView[SweptLane]):
    """A sweep as it stands after the events seen so far."""

    def new_lane(self, name: str) -> SweptLane:
        """A lane of which nothing is known but its name."""
        return SweptLane(name)

    def _on_context_start(self, lane: SweptLane, data: dict[str, Any]) -> None:
        lane.start = data

    def _on_context_quality(self, lane: SweptLane, data: dict[str, Any]) -> None:
        lane.quality.append(data)

    def _on_context_speed(self, lane: SweptLane, data: dict[str, Any]) -> None:
        lane.speed.append(data)

    def _on_lane_failed(self, lane: SweptLane, data: dict[str, Any]) -> None:
        lane.failure = data


@dataclass(frozen=True)
class Safety:
    """Up to how many tokens a cache keeps the bound, as measured."""

    safe: int | None  # the longest length up to which the whole interval of the mean lies within the bound
    mean: int | None  # the longest up to which the mean does
    broken: dict[str, Any] | None  # the first point whose mean is beyond the bound


def safety(curve: list[dict[str, Any]], bound: float) -> Safety:
    """Judge a curve: a length counts only where every shorter one holds too."""
    safe = mean = None
    certain = True
    for point in curve:
        if not point["kld"] <= bound:
            return Safety(safe, mean, point)
        mean = point["length"]
        certain = certain and point["high"] <= bound
        safe = point["length"] if certain else safe
    return Safety(safe, mean, None)


def attention_share(point: dict[str, Any]) -> dict[str, float] | None:
    """Shares of a step: of attention as a whole, and of it what grows with the text: scores, sums and the cache."""
    parts, linear = point["parts"], point["linear"]
    whole = sum(parts.values())
    if not whole or "attention" not in parts:
        return None
    cache = parts.get("cache", 0.0)
    return {
        "attention": (parts["attention"] + cache) / whole,
        "grows": (parts["attention"] - linear.get("attention", 0.0) + cache) / whole,
    }
