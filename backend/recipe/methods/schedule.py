"""The cubic schedule by which weights become zero while a model trains: many at first, fewer and fewer later."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from backend.recipe.base import RecipeError
from backend.recipe.method import Method

if TYPE_CHECKING:
    from backend.recipe.training import Training


class Thinning(Method):
    """More and more single weights set to zero. A subclass says by what they are chosen.

    Source: Zhu and Gupta 2017, equation 1.
    """

    name: ClassVar[str] = ""  # before the share of zeros in the name of a run

    sparsity: float = Field(0.5, gt=0.0, lt=1.0, description="share of the layers' weights that is zero at the end")
    begin: float = Field(0.0, ge=0.0, lt=1.0, description="share of the steps after which the first weights go")
    end: float = Field(
        0.6, gt=0.0, le=1.0, description="share of the steps after which the last ones go; the rest heals"
    )
    every: int = Field(10, ge=1, le=1_000_000, description="steps between two times that weights are chosen")
    scope: Literal["layer", "global"] = Field(
        "layer", description="the share of every matrix, or of all together: then some matrices lose more than others"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.begin >= self.end:
            remedy = "Begin earlier, or end later."
            raise RecipeError(f"methods.{self.kind}.end", self.end, f"more than the begin, {self.begin:g}", remedy)
        return self

    @property
    def label(self) -> str:
        """The share of zeros, and that they gain nothing by themselves."""
        where = " over all layers" if self.scope == "global" else ""
        return f"{self.name} to {self.sparsity:.0%} zeros{where} (dense: the same speed)"

    def span(self, steps: int) -> tuple[int, int]:
        """Steps taken when the schedule begins, and when it ends; one at least lies between."""
        first = min(steps - 1, round(self.begin * steps))
        return first, min(steps, max(first + 1, round(self.end * steps)))

    def due(self, taken: int, steps: int) -> bool:
        """Whether weights are chosen after so many steps: every so often, and at the very end of the schedule."""
        first, last = self.span(steps)
        return first <= taken <= last and (taken == last or (taken - first) % self.every == 0)

    def sparsity_at(self, taken: int, steps: int, before: float = 0.0) -> float:
        """Share of zeros after so many steps.

        Args:
            before: the share that was there when it began.
        Source: Zhu and Gupta 2017, equation 1: s = s_f + (s_i - s_f) (1 - (t - t0) / (t1 - t0))^3.
        """
        first, last = self.span(steps)
        left = 1 - min(1.0, max(0.0, (taken - first) / (last - first)))
        return self.sparsity + (before - self.sparsity) * left**3

    def unfit(self, asked: Training) -> str | None:
        """An early end, which quality that falls as zeros come would bring about."""
        if asked.looks.patience:
            return "looks.patience 0: quality falls while weights go, and it would end before the zeros are there"
        return None

    def clash(self, other: Method) -> str | None:
        """Another that chooses, and what leaves zeros behind as something else."""
        if isinstance(other, Thinning):
            return "both choose which weights become zero"
        if other.kind == "qat":
            return "the codes that it converts to need not have a zero, so that zeros would not stay zeros"
        return None
