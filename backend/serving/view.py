"""The view of a serving: events folded into what the Serve page shows. Raw numbers: seconds, blocks, tokens.

Events (kind, lane, data):

    opened       None   versions, hardware, lanes: {name: label}, model, load
    phase        lane   name, done, total, eta_s|None, text
    ready        lane   label, parameters, receipt, memory
    loaded       lane   requests, blocks
    served       lane   clock, finished, stats, and rows:
                        arrived [id, at_s, prompt_tokens, output_tokens]
                        ended   [id, arrival_s, first_s, end_s, tokens]
                        spans   [id, slot, since_s, writes_s, until_s]: one stay in a slot, and from when on it wrote
                        open    [id, slot, since_s, writes_s]: stays that go on
                        samples [clock_s, queue, running, batch, blocks_used, tokens_fed]
    alone        lane   request, tokens, same, differs_at|None       one answer, written again alone
    lane_failed  lane   cause, detail, remedy, phase
    verdict      None   lanes: {name: figures}, ratio: {name: {figure: of the baseline's}}
    failed / finished / cancelled    None
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.eventview import EventView
from backend.recipe.serving import Targets
from backend.serving.figures import Served, summary

RATIOS = ("tokens_per_s", "goodput_per_s", "ttft_p99_s", "tpot_p99_s", "latency_p99_s")


@dataclass
class ServedView:
    """One lane as far as it has served."""

    name: str
    label: str = ""
    ready: dict[str, Any] = field(default_factory=dict)
    requests: int = 0
    blocks: int = 0
    clock: float = 0.0
    done: bool = False
    arrived: list[list[float]] = field(default_factory=list)
    ended: list[Served] = field(default_factory=list)
    spans: list[list[float]] = field(default_factory=list)
    open: list[list[float]] = field(default_factory=list)
    samples: list[list[float]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    alone: list[dict[str, Any]] = field(default_factory=list)
    failure: dict[str, Any] | None = None

    def figures(self, targets: Targets) -> dict[str, Any]:
        """Of what has ended so far."""
        found = summary(self.ended, self.clock, targets)
        if not found:
            return {}
        known = ("preemptions", "prefix_hit_rate")
        return found | {name: self.stats[name] for name in known if name in self.stats}


@dataclass
class ServingView(EventView[ServedView]):
    """A serving as it stands after the events seen so far."""

    verdict: dict[str, Any] | None = None

    def new_lane(self, name: str) -> ServedView:
        """A lane of which nothing is known but its name."""
        return ServedView(name)

    def _on_ready(self, lane: ServedView, data: dict[str, Any]) -> None:
        lane.ready = data

    def _on_loaded(self, lane: ServedView, data: dict[str, Any]) -> None:
        lane.requests, lane.blocks = data["requests"], data["blocks"]

    def _on_served(self, lane: ServedView, data: dict[str, Any]) -> None:
        lane.clock, lane.done, lane.stats, lane.open = data["clock"], data["finished"], data["stats"], data["open"]
        lane.arrived += data["arrived"]
        lane.ended += [Served(int(id), at, first, end, int(n)) for id, at, first, end, n in data["ended"]]
        lane.spans += data["spans"]
        lane.samples += data["samples"]

    def _on_alone(self, lane: ServedView, data: dict[str, Any]) -> None:
        lane.alone.append(data)

    def _on_lane_failed(self, lane: ServedView, data: dict[str, Any]) -> None:
        lane.failure = data

    def _on_verdict(self, _: None, data: dict[str, Any]) -> None:
        self.verdict = data

    def judged(self, targets: Targets) -> dict[str, Any]:
        """The figures of every lane that has served to its end, and their ratio to the baseline's."""
        lanes = {name: lane.figures(targets) for name, lane in self.lanes.items() if lane.done}
        base = lanes.get("base", {})
        ratio = {
            name: {figure: found[figure] / base[figure] for figure in RATIOS if base.get(figure) and figure in found}
            for name, found in lanes.items()
            if name != "base" and base
        }
        return {"lanes": lanes, "ratio": ratio}
