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

from dataclasses import dataclass, field
from typing import Any

from backend.eventview import EventView


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
class EncodingView(EventView[EncodingLane]):
    """An encoder's race as it stands after the events seen so far."""

    conditions: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] | None = None

    @property
    def sizes(self) -> list[int]:
        """Sentences a call, as they were measured."""
        return list(self.opened.get("sizes", ()))

    def new_lane(self, name: str) -> EncodingLane:
        """A lane of which nothing is known but its name."""
        return EncodingLane(name)

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
