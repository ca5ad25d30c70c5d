"""A switch of the benchmarks' own that makes a lane slower by a known share, so that finding it can be tested."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from pydantic import Field

from backend.recipe.switch import Group, Switch
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique


class HeldUp(Switch):
    """Every one-token step waits, busily, for a share of the time that its forward pass took."""

    kind: ClassVar[str] = "held_up"
    group: ClassVar[Group] = Group.RUNTIME
    order: ClassVar[int] = 690
    title: ClassVar[str] = "Held up"
    summary: ClassVar[str] = "Makes every step longer by a known share."
    share: float = Field(0.03, ge=0.0, le=1.0, description="of the forward pass")


@technique(HeldUp)
class Hold:
    """Puts a wait behind the model's one-token steps."""

    def apply(self, subject: Subject, switch: HeldUp) -> None:
        """Stand in for the forward of one-token steps."""
        forward = subject.plan.forward or subject.model

        def held(**inputs: Any) -> Any:
            began = time.perf_counter()
            out = forward(**inputs)
            now = time.perf_counter()
            until = now + switch.share * (now - began)
            while time.perf_counter() < until:
                pass
            return out

        subject.plan.forward = held

    def read_back(self, subject: Subject, switch: HeldUp) -> Effect:
        """The stand-in is there or is not."""
        there = subject.plan.forward is not None and subject.plan.forward.__name__ == "held"
        return Effect(switch.kind, there, f"steps held up by {100 * switch.share:g}%")
