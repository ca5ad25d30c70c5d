"""The view of an encoder's race: events folded into what a page, a command line or an export shows. Raw numbers.

Events of a job of the kind `encode` (kind, lane, data):

    opened       None   versions, hardware, lanes: {name: label}, keys, race, scored, sizes [sentences a call]
    phase        lane   name, done, total, eta_s|None, text
    ready        lane   label, parameters, receipt (see engine/encodingreceipt.py), memory
    receipt      lane   receipt, read again after a run was watched
    worth        lane   size, grades, neighbours {right, asked, low, high}; of variants also what stands in
                        backend/embeddings.py's worth_against()
    found        lane   sentences: [{sentence, topic, cosine}], the nearest to the race's own text
    encoded      lane   round, order, size, sentences, tokens, call_s [...], peak_bytes
    conditions   None   what else the machine did during the measurement, see backend/suspicion.py
    lane_failed  lane   cause, detail, remedy, phase
    verdict      None   see backend/encodingverdict.py
    failed       None   card
    finished / cancelled    None   wall_s
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from backend.journal import Event


@dataclass
class EncodingLane:
    """One lane as it stands."""

    name: str
    label: str = ""
    parameters: int | None = None
    receipt: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    worth: dict[int, dict[str, Any]] = field(default_factory=dict)  # by size of the call
    found: list[dict[str, Any]] = field(default_factory=list)
    encoded: list[dict[str, Any]] = field(default_factory=list)
    failure: dict[str, Any] | None = None


@dataclass
class EncodingView:
    """An encoder's race as it stands after the events seen so far."""

    last_id: int = 0
    state: str = "queued"
    opened: dict[str, Any] = field(default_factory=dict)
    phase: dict[str, Any] = field(default_factory=dict)
    lanes: dict[str, EncodingLane] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] | None = None
    card: dict[str, Any] | None = None
    wall_s: float | None = None

    @property
    def sizes(self) -> list[int]:
        """Sentences a call, as they were measured."""
        return list(self.opened.get("sizes", ()))

    def apply_all(self, events: Iterable[Event]) -> EncodingView:
        """Fold events in, in order."""
        for event in events:
            self.apply(event)
        return self

    def apply(self, event: Event) -> None:
        """Fold one event in; kinds that are not known are left alone."""
        self.last_id = max(self.last_id, event.id)
        handler = getattr(self, f"_on_{event.kind}", None)
        if handler is not None:
            lane = self.lanes.setdefault(event.lane, EncodingLane(event.lane)) if event.lane else None
            handler(lane, event.data)

    def _on_opened(self, _: None, data: dict[str, Any]) -> None:
        self.state, self.opened = "running", data
        for name, label in data["lanes"].items():
            self.lanes.setdefault(name, EncodingLane(name)).label = label

    def _on_phase(self, _: EncodingLane | None, data: dict[str, Any]) -> None:
        self.phase = data

    def _on_ready(self, lane: EncodingLane, data: dict[str, Any]) -> None:
        lane.label, lane.parameters = data["label"], data["parameters"]
        lane.receipt, lane.memory = data["receipt"], data["memory"]

    def _on_receipt(self, lane: EncodingLane, data: dict[str, Any]) -> None:
        lane.receipt = data["receipt"]

    def _on_worth(self, lane: EncodingLane, data: dict[str, Any]) -> None:
        lane.worth[data["size"]] = data

    def _on_found(self, lane: EncodingLane, data: dict[str, Any]) -> None:
        lane.found = data["sentences"]

    def _on_encoded(self, lane: EncodingLane, data: dict[str, Any]) -> None:
        lane.encoded.append(data)

    def _on_conditions(self, _: None, data: dict[str, Any]) -> None:
        self.conditions = data

    def _on_lane_failed(self, lane: EncodingLane, data: dict[str, Any]) -> None:
        lane.failure = data

    def _on_verdict(self, _: None, data: dict[str, Any]) -> None:
        self.verdict = data

    def _on_failed(self, _: None, data: dict[str, Any]) -> None:
        self.state, self.card = "failed", data["card"]

    def _on_finished(self, _: None, data: dict[str, Any]) -> None:
        self.state, self.wall_s = "finished", data.get("wall_s")

    def _on_cancelled(self, _: None, data: dict[str, Any]) -> None:
        self.state, self.wall_s = "cancelled", data.get("wall_s")
