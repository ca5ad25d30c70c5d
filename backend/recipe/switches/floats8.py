"""Eight-bit floats."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Group, Switch


class Fp8(Switch):
    """Weights and activations in 8-bit floats (e4m3), a scale per output channel and per token."""

    kind: ClassVar[str] = "fp8"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "fp8"
    summary: ClassVar[str] = "8 bits with an exponent bear outliers better than int8; only recent GPUs multiply them."
    source: ClassVar[str] = "Micikevicius et al. 2022; torchao Float8DynamicActivationFloat8Weight"

    simulate: bool = Field(False, description="round as fp8 would and multiply in float: quality only, no speed")

    @property
    def label(self) -> str:
        return "fp8" + (", simulated" if self.simulate else "")

    @property
    def simulates(self) -> bool:
        return self.simulate

    def refuse(self, facts: ModelFacts) -> str | None:
        if not self.simulate and not facts.has_gpu:
            return "a GPU that multiplies 8-bit floats; here it can only be simulated: quality without speed"
        return None
