"""Gradual magnitude pruning: the smallest weights set to zero, a few at a time, while the others make up for them."""

from __future__ import annotations

from typing import ClassVar

from backend.recipe.methods.schedule import Thinning


class GradualMagnitude(Thinning):
    """The smallest weights go, more of them every so many steps, and stay zero to the end."""

    kind: ClassVar[str] = "gradual_magnitude"
    title: ClassVar[str] = "Gradual magnitude pruning"
    summary: ClassVar[str] = (
        "Sets the smallest weights to zero, a few at a time by a cubic schedule, while the rest trains; in dense "
        "matrices that changes quality and not speed."
    )
    source: ClassVar[str] = "Zhu and Gupta 2017"
    name: ClassVar[str] = "gradual magnitude"
    bytes_a_weight: ClassVar[int] = 1  # the mask
