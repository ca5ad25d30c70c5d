"""Movement pruning (Sanh et al. 2020): weights stay that training moves away from zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backend.recipe.methods.movement import Movement
from backend.recipe.methods.schedule import Thinning
from backend.techniques.coach import Pupil, coach
from backend.techniques.train.thinning import KEPT, ThinningCoach, thinned

SCORES = "train_scores"  # (N, K) fp32
ASIDE = "train_aside"  # (N, K): the values of weights that are out, zero where one is in


@coach(Movement)
class MovementCoach(ThinningCoach):
    """Hard movement pruning: S sums -w dL/dw', w' the weight as it multiplies, zero where it is out (equation 4).

    The gradient of a weight that is out reaches its score as if it were in (straight-through), so that it may come
    back with the value that it left with. Simplified: the scores are plain sums, as in the paper's analysis, and not
    parameters of an optimizer with a rate of their own, so what is added counts alike at every step; a weight that is
    out does not move by momentum; after the end of the schedule nothing comes or goes. The soft variant, with a
    threshold and a penalty, is not here.
    """

    def begin(self, pupil: Pupil, method: Thinning) -> None:
        """Scores of 0, and nothing aside."""
        super().begin(pupil, method)
        for layer in thinned(pupil.subject).values():
            layer.register_buffer(SCORES, torch.zeros_like(layer.weight, dtype=torch.float32))
            layer.register_buffer(ASIDE, torch.zeros_like(layer.weight))

    def before_step(self, pupil: Pupil, method: Movement, step: int) -> None:
        """Add to the scores; then no gradient for what is out."""
        still = step + 1 > method.span(pupil.steps)[1]
        with torch.no_grad():
            for layer in thinned(pupil.subject).values():
                gradient = layer.weight.grad
                if gradient is None:
                    continue
                if not still:
                    value = layer.weight + getattr(layer, ASIDE)  # one of the two is zero
                    getattr(layer, SCORES).addcmul_(value, gradient, value=-1.0)
                gradient.mul_(getattr(layer, KEPT))

    def scores(self, layer: Any) -> Tensor:
        """As they are summed up."""
        found: Tensor = getattr(layer, SCORES)
        return found

    def change(self, layer: Any, mask: Tensor) -> None:
        """Weights that go leave their value aside, those that come get it back."""
        whole = layer.weight + getattr(layer, ASIDE)
        getattr(layer, KEPT).copy_(mask)
        getattr(layer, ASIDE).copy_(whole * ~mask)
        layer.weight.copy_(whole * mask)

    def kept_names(self) -> tuple[str, ...]:
        """Mask, scores and values aside."""
        return (KEPT, SCORES, ASIDE)
