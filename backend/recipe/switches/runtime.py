"""Runtime: where and how the same computation runs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Group, Switch


class Device(Switch):
    """The device of this lane; without it the best one that was found."""

    kind: ClassVar[str] = "device"
    group: ClassVar[Group] = Group.RUNTIME
    order: ClassVar[int] = 10
    title: ClassVar[str] = "Device"
    summary: ClassVar[str] = "Runs the lane on a chosen device and not on the best one found."

    name: Literal["cpu", "cuda", "mps"] = Field("cpu", description="cpu, cuda (NVIDIA, AMD) or mps (Apple)")

    @property
    def label(self) -> str:
        return f"on {self.name}"

    def refuse(self, facts: ModelFacts) -> str | None:
        if not any(device.split(":")[0] == self.name for device in facts.devices):
            return f"one of the devices of this machine: {', '.join(facts.devices)}"
        return None


class Threads(Switch):
    """How many CPU threads compute one operation."""

    kind: ClassVar[str] = "threads"
    group: ClassVar[Group] = Group.RUNTIME
    order: ClassVar[int] = 20
    title: ClassVar[str] = "Threads"
    summary: ClassVar[str] = "Threads an operation: more help while the memory bus is not yet full."

    count: int = Field(1, ge=1, le=1024, description="threads; more than cores never helps")

    @property
    def label(self) -> str:
        return f"{self.count} thread{'s' if self.count > 1 else ''}"


class Compile(Switch):
    """torch.compile of the forward pass."""

    kind: ClassVar[str] = "compile"
    group: ClassVar[Group] = Group.RUNTIME
    order: ClassVar[int] = 600
    title: ClassVar[str] = "Compile"
    summary: ClassVar[str] = "Fuses operations and drops Python overhead; takes up to minutes before the first token."
    source: ClassVar[str] = "torch.compile, inductor"
    decoders_only: ClassVar[str] = "a decoder: what is compiled here is its one-token step"

    mode: Literal["default", "max-autotune"] = Field(
        "default", description="max-autotune tries kernels: slower to start"
    )

    @property
    def label(self) -> str:
        return "compiled"

    def alone(self) -> str | None:
        return "what is compiled is the step of one token of one request"
