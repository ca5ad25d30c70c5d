"""What every switch asks for whose weights end in the packed int4 layers."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.stores import Ground, Store, Stored, int4_groups, int8_rows
from backend.recipe.switch import Switch


class Grouped(Switch):
    """A switch that packs weights in groups for the int4 kernel, whatever chooses their codes."""

    kernel_bytes: ClassVar[int] = 5 * 10**6

    group_size: Literal[32, 64, 128] = Field(32, description="weights that share a scale: smaller is finer and larger")
    head: Literal["int4", "int8", "keep"] = Field("int8", description="the output head: int4, int8, or as it is")

    def labelled(self, name: str) -> str:
        """The name with group size and head, as the title of a lane has it."""
        return f"{name} g{self.group_size}" + ("" if self.head == "int4" else f", head {self.head}")

    @property
    def multiplies(self) -> str:
        """The int4 kernel's activations."""
        return "bfloat16"

    def stores(self, ground: Ground) -> Stored:
        """int4 in groups, the head as asked."""
        fours = int4_groups(self.group_size, ground.width)
        heads: dict[str, Store | None] = {"int4": fours, "int8": int8_rows, "keep": None}
        return Stored(fours, heads[self.head])

    def refuse(self, facts: ModelFacts) -> str | None:
        """A group that does not divide the hidden size."""
        if facts.hidden % self.group_size:
            fits = [str(size) for size in (32, 64, 128) if facts.hidden % size == 0]
            allowed = (
                f"a group size of {' or '.join(fits)}" if fits else "a model with a hidden size in multiples of 32"
            )
            return f"{allowed}: {self.group_size} does not divide the hidden size {facts.hidden}"
        return None


class PackedForCpu(Grouped):
    """One whose codes are packed for the CPU's kernel only."""

    def refuse(self, facts: ModelFacts) -> str | None:
        """A GPU, too."""
        if facts.has_gpu:
            return "its codes are packed for the CPU's int4 kernel; choose int4 weights only"
        return super().refuse(facts)
