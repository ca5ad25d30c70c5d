"""The thinning's view: events folded into a curve of quality against size. Raw numbers: nats, bytes.

Events of a thinning (kind, lane, data):

    opened        None   versions, hardware, lanes: {base: label}, model
    phase         base   name, done, total, eta_s|None, text
    thin_start    base   units, layers, tokens, parameters, bytes
    thinned       base   left, removed (as a recipe names it, '' for neurons), parameters, bytes, kld, top1,
                         perplexity_ratio                                                        one a step
    thin_stopped  base   reason
    lane_failed   base   cause, detail, remedy, phase
    failed        None   card
    finished / cancelled    None   wall_s
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.eventview import EventView


@dataclass
class ThinnedLane:
    """The model as far as it has been thinned."""

    name: str
    label: str = ""
    start: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""
    failure: dict[str, Any] | None = None

    def within(self, kld: float) -> dict[str, Any] | None:
        """The last step before the first that is over the budget, or None where the first one is."""
        kept = None
        for step in self.steps:
            if not step["kld"] <= kld:
                break
            kept = step
        return kept


@dataclass
class ThinningView(EventView[ThinnedLane]):
    """A thinning as it stands after the events seen so far."""

    def new_lane(self, name: str) -> ThinnedLane:
        """A lane of which nothing is known but its name."""
        return ThinnedLane(name)

    def _on_thin_start(self, lane: ThinnedLane, data: dict[str, Any]) -> None:
        lane.start = data

    def _on_thinned(self, lane: ThinnedLane, data: dict[str, Any]) -> None:
        lane.steps.append(data)

    def _on_thin_stopped(self, lane: ThinnedLane, data: dict[str, Any]) -> None:
        lane.stopped = data["reason"]

    def _on_lane_failed(self, lane: ThinnedLane, data: dict[str, Any]) -> None:
        lane.failure = data
