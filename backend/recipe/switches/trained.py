"""Weights that come out of a training, in the place of the model's own."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Group, Switch


class Trained(Switch):
    """The model is replaced by one that was trained to do its work."""

    kind: ClassVar[str] = "trained"
    group: ClassVar[Group] = Group.TRAINING
    order: ClassVar[int] = 50
    title: ClassVar[str] = "Trained model"
    summary: ClassVar[str] = (
        "Replaces the model by one that was trained from it, so that both race: smaller or cheaper, and healed."
    )
    source: ClassVar[str] = "Hinton et al. 2015, distillation; the page Train makes such models"
    hint: ClassVar[str] = "The page Train makes one, and offers the race."

    name: str = Field(
        "",
        max_length=500,
        description="a model with the same tokenizer: the name of a finished training, or another model",
        examples=["storyteller-half"],
    )

    @property
    def label(self) -> str:
        return self.name or "trained model"

    def refuse(self, facts: ModelFacts) -> str | None:
        return None if self.name else "the name of a model that came out of a training: the page Train makes one"
