"""Movement pruning: weights set to zero that training moves towards zero, however large they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from backend.recipe.methods.schedule import Thinning

if TYPE_CHECKING:
    from backend.recipe.training import Training


class Movement(Thinning):
    """The weights stay whose scores are highest: those that have moved away from zero."""

    kind: ClassVar[str] = "movement"
    title: ClassVar[str] = "Movement pruning"
    summary: ClassVar[str] = (
        "Keeps the weights that training moves away from zero, by a score that sums minus weight times gradient; "
        "dense matrices, so quality changes and speed does not."
    )
    source: ClassVar[str] = "Sanh et al. 2020"
    name: ClassVar[str] = "movement"
    bytes_a_weight: ClassVar[int] = 9  # the mask, the score, and the value of a weight that is out

    def unfit(self, asked: Training) -> str | None:
        """Zeros that were there before, whose scores stay 0."""
        if any(switch.zeros.share for switch in asked.student.pipeline):
            return "a student without single weights set to zero: a zero has no score, and others would go in its place"
        return super().unfit(asked)
