"""What a training method gets and may do: a pupil under training, and the moments at which a method acts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from backend.recipe.base import Config
from backend.recipe.method import Method
from backend.recipe.training import Training
from backend.techniques.base import Subject
from backend.techniques.registry import Registry


@dataclass
class Pupil:
    """A student under training, and the teacher that it learns from, if any."""

    subject: Subject
    teacher: Subject | None
    asked: Training
    notes: dict[str, Any] = field(default_factory=dict)  # what a method keeps between its moments

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.asked.steps


class Coach:
    """One method. Every moment does nothing by default; a method overrides those that it needs.

    `begin` is called before the optimizer is made, on a fresh start and on a resumed one alike: what it puts into the
    model has the same names both times, and the checkpoint fills it.
    """

    def begin(self, pupil: Pupil, method: Any) -> None:
        """Change the student before anything is trained.

        Raises:
            RecipeError: when this model cannot be trained so.
        """

    def batch(self, pupil: Pupil, method: Any, ids: Tensor, step: int) -> Tensor:
        """The tokens (B, T + 1) to learn from at this step, made from those of the text."""
        return ids

    def before_step(self, pupil: Pupil, method: Any, step: int) -> None:
        """Gradients are there, the optimizer has not used them."""

    def after_step(self, pupil: Pupil, method: Any, step: int) -> None:
        """The weights have just moved."""

    def told(self, pupil: Pupil, method: Any) -> dict[str, float]:
        """Numbers for the live view, beside the losses."""
        return {}

    def finish(self, pupil: Pupil, method: Any) -> None:
        """Leave a plain model behind: merge, convert, take off what only training needs."""


_COACHES: Registry[Coach] = Registry("coach", "backend.techniques.train")
coach = _COACHES.answers


def all_coaches() -> dict[type[Config], Coach]:
    """Every coach by the method class that asks for it."""
    return _COACHES.all


def coaches_of(asked: Training) -> list[tuple[Coach, Method]]:
    """The coaches of a training with their settings, in the order in which they were asked for."""
    return [(all_coaches()[type(method)], method) for method in asked.methods.values()]
