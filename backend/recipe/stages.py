"""The stages of a progressive distillation: assistants between the teacher and the student."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from backend.recipe.base import Config, RecipeError
from backend.recipe.recipe import Recipe


class Assistant(Config):
    """A student of its own before the last one."""

    student: Recipe = Field(description="what is done to its model before it trains")
    share: float = Field(0.25, gt=0.0, lt=1.0, description="of the tokens; the student gets what is left")


class Stages(Config):
    """Assistants, each trained like a student; without any, the student learns from the teacher at once."""

    assistants: tuple[Assistant, ...] = Field((), max_length=32)
    teacher: Literal["before", "first"] = Field(
        "before", description="who teaches a stage: the model of the stage before (Mirzadeh 2020), or the first teacher"
    )
    made_from: Literal["original", "before"] = Field(
        "original", description="what a stage's recipe is done to: the original, or the trained model before it"
    )

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        given = sum(assistant.share for assistant in self.assistants)
        if given > 0.99:
            remedy = "Lower the shares of the assistants."
            raise RecipeError("stages.assistants", f"{given:.0%} of the tokens", "at most 99% in all", remedy)
        return self
