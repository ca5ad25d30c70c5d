"""What a journal holds: orders, and what happened in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ENDED = ("finished", "cancelled", "failed")


@dataclass(frozen=True)
class Event:
    """One thing that happened in a job: `lane` is None where it concerns them all."""

    id: int
    job: int
    at: float  # unix seconds
    kind: str
    lane: str | None
    data: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One order: `spec` is the plain data of a race or of another kind of work."""

    id: int
    created: float
    kind: str
    owner: str
    spec: dict[str, Any]
    state: str  # queued, running, paused, finished, cancelled, failed
    cancel: bool
    finished: float | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED
