"""Gradual magnitude pruning (Zhu and Gupta 2017): the smallest weights go, a few at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.recipe.methods.gradual_magnitude import GradualMagnitude
from backend.techniques.coach import Pupil, coach
from backend.techniques.train.thinning import KEPT, ThinningCoach, thinned


@coach(GradualMagnitude)
class GradualMagnitudeCoach(ThinningCoach):
    """Weights that are out get no gradient and stay zero; they are the smallest ever after, so none comes back."""

    def before_step(self, pupil: Pupil, method: GradualMagnitude, step: int) -> None:
        """No gradient for what is out: it would count in the norm that is clipped."""
        with torch.no_grad():
            for layer in thinned(pupil.subject).values():
                if layer.weight.grad is not None:
                    layer.weight.grad.mul_(getattr(layer, KEPT))

    def scores(self, layer: torch.nn.Linear) -> Tensor:
        """|w|, and less than any for what is out: a weight that happens to be 0 goes after it."""
        return layer.weight.detach().abs().float().masked_fill_(~getattr(layer, KEPT), -1.0)
