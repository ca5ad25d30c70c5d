"""What the views of all jobs share: events folded in one by one, and how a job begins and ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

from backend.journal import Event


class ViewedLane(Protocol):
    """A lane of a view."""

    label: str


class JudgedLane(ViewedLane, Protocol):
    """A lane of a view that ends in a verdict."""

    receipt: dict[str, Any]
    failure: dict[str, Any] | None


def head_of_verdict(lane: JudgedLane, simulated: bool) -> dict[str, Any]:
    """With what a lane's entry in any verdict begins: who it is, whether it failed, and what really took effect."""
    effects = lane.receipt.get("effects", [])
    return {
        "label": lane.label,
        "failed": lane.failure is not None,
        "simulated": simulated,
        "effects": effects,
        "no_effect": [effect["kind"] for effect in effects if not effect["took_effect"]],
    }


L = TypeVar("L", bound=ViewedLane)


@dataclass
class EventView(Generic[L]):
    """A job as it stands after the events seen so far. A subclass makes its lanes, and folds in kinds of its own."""

    last_id: int = 0
    state: str = "queued"
    opened: dict[str, Any] = field(default_factory=dict)
    phase: dict[str, Any] = field(default_factory=dict)
    lanes: dict[str, L] = field(default_factory=dict)
    card: dict[str, Any] | None = None
    wall_s: float | None = None

    def new_lane(self, name: str) -> L:
        """A lane of which nothing is known but its name."""
        raise NotImplementedError

    def lane(self, name: str) -> L:
        """The lane of that name, from now on among the lanes."""
        if name not in self.lanes:
            self.lanes[name] = self.new_lane(name)
        return self.lanes[name]

    def apply_all(self, events: Iterable[Event]) -> Self:
        """Fold events in, in order."""
        for event in events:
            self.apply(event)
        return self

    def apply(self, event: Event) -> None:
        """Fold one event in. Kinds that are not known are left alone: a newer worker may write them."""
        self.last_id = max(self.last_id, event.id)
        handler = getattr(self, f"_on_{event.kind}", None)
        if handler is not None:
            handler(self.lane(event.lane) if event.lane else None, event.data)

    def _on_opened(self, _: None, data: dict[str, Any]) -> None:
        self.state, self.opened = "running", data
        for name, label in data["lanes"].items():
            self.lane(name).label = label

    def _on_phase(self, _: L | None, data: dict[str, Any]) -> None:
        self.phase = data

    def _on_failed(self, _: None, data: dict[str, Any]) -> None:
        self.state, self.card = "failed", data["card"]

    def _on_finished(self, _: None, data: dict[str, Any]) -> None:
        self.state, self.wall_s = "finished", data.get("wall_s")

    def _on_cancelled(self, _: None, data: dict[str, Any]) -> None:
        self.state, self.wall_s = "cancelled", data.get("wall_s")
