"""Whole layers that are taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.named import read_layers, write_layers
from backend.recipe.switch import Group, Switch
from backend.recipe.switches.pruning import LONGEST, SEED_NOTE, ranked, unlike_bert

LayerRanking = Literal["cosine", "angular", "random"]
Pattern = Literal["scattered", "block"]


class DropLayers(Switch):
    """Whole layers removed, those that change their input least first."""

    kind: ClassVar[str] = "drop_layers"
    group: ClassVar[Group] = Group.PRUNING
    order: ClassVar[int] = 110
    title: ClassVar[str] = "Whole layers"
    summary: ClassVar[str] = (
        "Removes the layers that change their input least: speed grows in proportion, text suffers."
    )
    source: ClassVar[str] = "Men et al. 2024 (ShortGPT), Block Influence; Gromov et al. 2024, angular distance"
    hint: ClassVar[str] = "Inspect, tab Pruning, shows which layers change least, and lets you choose them by hand."

    count: int = Field(1, ge=1, le=1000, description="how many layers")
    ratio: float = Field(0.0, ge=0.0, lt=1.0, description="share of the layers in the place of the count; 0 is none")
    by: LayerRanking = Field(
        "cosine",
        description="the distance between input and output that ranks them, as a cosine or an angle; or chance",
    )
    pattern: Pattern = Field("scattered", description="each by itself, or one contiguous block of so many layers")
    remove: str = Field(
        "",
        max_length=LONGEST,
        description="layers that go whatever their rank; they count, and where they are more than the count, all go",
        examples=["3 5-7"],
    )
    keep: str = Field("", max_length=LONGEST, description="layers that stay", examples=["0 17"])
    seed: int = Field(0, ge=0, le=2**31 - 1, description=SEED_NOTE)

    @field_validator("remove", "keep")
    @classmethod
    def _in_order(cls, value: str, info: ValidationInfo) -> str:
        return write_layers(read_layers(value, f"switches.drop_layers.{info.field_name}"))

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if both := sorted(set(self.removed) & set(self.kept)):
            allowed, remedy = "a layer that is removed, or one that is kept", "Take it out of one of them."
            raise RecipeError("switches.drop_layers.keep", f"{both[0]} in remove and in keep", allowed, remedy)
        return self

    @property
    def removed(self) -> tuple[int, ...]:
        """The layers that go whatever their rank."""
        return read_layers(self.remove, "remove")

    @property
    def kept(self) -> tuple[int, ...]:
        """The layers that stay."""
        return read_layers(self.keep, "keep")

    def lost_of(self, layers: int) -> int:
        """How many of so many layers go."""
        wanted = max(1, round(self.ratio * layers)) if self.ratio else self.count
        return max(wanted, len(self.removed))

    def eased(self, share: float) -> Self:
        named = self.removed[-max(1, round(share * len(self.removed))) :] if self.removed else ()
        fewer = {"count": max(1, round(share * self.count)), "ratio": share * self.ratio}
        return self.model_copy(update=fewer | {"remove": write_layers(named)})

    @property
    def label(self) -> str:
        named, count = len(self.removed), max(self.count, len(self.removed))
        whole = f"{self.ratio:.0%} fewer layers" if self.ratio else f"{count} layer{'s' if count > 1 else ''} fewer"
        chosen = ", chosen" if named == count and not self.ratio else ranked(self.by, "cosine")
        return whole + chosen + (", one block" if self.pattern == "block" and (count > 1 or self.ratio) else "")

    @classmethod
    def foreign(cls, facts: ModelFacts) -> str | None:
        return unlike_bert(facts)

    def refuse(self, facts: ModelFacts) -> str | None:
        for layer in (*self.removed, *self.kept):
            if layer >= facts.layers:
                return f"layers 0 to {facts.layers - 1}: there is no layer {layer}"
        most = facts.layers - max(1, len(self.kept))
        lost = self.lost_of(facts.layers)
        if lost > most:
            told = f"the model has {facts.layers}" + (f" and {len(self.kept)} are kept" if self.kept else "")
            return f"1 to {most} layers: {told}"
        if self.pattern == "block" and not blocks(facts.layers, lost, self.removed, self.kept):
            return f"a block of {lost} layers with all that are removed and none that are kept: there is none"
        return None


def blocks(layers: int, count: int, removed: Sequence[int], kept: Sequence[int]) -> list[int]:
    """First layers of the contiguous blocks of `count` layers that hold all of `removed` and none of `kept`."""
    starts = range(layers - count + 1)
    spans = {start: set(range(start, start + count)) for start in starts}
    return [start for start, span in spans.items() if span >= set(removed) and not span & set(kept)]
