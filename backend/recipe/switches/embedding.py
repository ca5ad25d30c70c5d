"""The embedding: how the table is held in which each token looks up its row."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.stores import Ground, Store, int4_groups, int8_rows
from backend.recipe.switch import Group, Switch

GROUP = 32  # numbers of a row that share a scale and zero in 4 bits


class EmbeddingTable(Switch):
    """The input embedding in 8 or 4 bits, beside any precision of the layers."""

    kind: ClassVar[str] = "embedding_table"
    group: ClassVar[Group] = Group.EMBEDDING
    order: ClassVar[int] = 310
    title: ClassVar[str] = "Packed table"
    summary: ClassVar[str] = (
        "Holds the rows that tokens look up in few bits: memory only, since a token reads one row; a head that reads "
        "the same floats is packed as int8 too."
    )
    source: ClassVar[str] = "rounding to nearest, as torchao's IntxWeightOnlyConfig does for embeddings"
    hint: ClassVar[str] = "8 bits cost nothing beside an int8 head that was tied: both read one table."

    bits: Literal[8, 4] = Field(8, description="8: a scale a row; 4: a scale and zero for 32 numbers of a row")

    @property
    def label(self) -> str:
        return f"int{self.bits} embedding"

    def table(self, ground: Ground) -> Store | None:
        """As an int8 head's rows are, or int4 groups."""
        return int8_rows if self.bits == 8 else int4_groups(GROUP, ground.width)

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.bits == 4 and facts.hidden % GROUP:
            return f"8 bits: groups of {GROUP} do not divide rows of {facts.hidden}"
        return None
