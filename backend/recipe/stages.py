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


def between(student: Recipe, count: int) -> tuple[Assistant, ...]:
    """So many assistants on the way to a student made from the original, each with an equal part more of its cuts.

    All have equal shares of the tokens, the student too. Steps that would be alike are one.

    Raises:
        RecipeError: for a student of which nothing can be taken away in parts.
    """
    ways: list[Recipe] = []
    for step in range(1, count + 1):
        eased = {kind: switch.eased(step / (count + 1)) for kind, switch in student.switches.items()}
        if not any(eased.values()):
            value, remedy = f"{count} on the way to {student.label}", "Switch one of these on, by its ratio or count."
            raise RecipeError("stages.assistants", value, "a student with fewer layers, heads or neurons", remedy)
        way = Recipe(switches={kind: eased[kind] or switch for kind, switch in student.switches.items()})
        if way not in (*ways, student):
            ways.append(way)
    return tuple(Assistant(student=way, share=1 / (len(ways) + 1)) for way in ways)
