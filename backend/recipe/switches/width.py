"""Hidden width: dimensions of the residual stream that are taken out everywhere."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Group, Switch
from backend.recipe.switches.pruning import EXPERTS_INSTEAD, SEED_NOTE, neurons_kept, ranked

WidthRanking = Literal["activation", "weights", "random"]


class PruneWidth(Switch):
    """Dimensions of the residual stream removed, the least important first."""

    kind: ClassVar[str] = "prune_width"
    group: ClassVar[Group] = Group.PRUNING
    order: ClassVar[int] = 135  # after heads and neurons, whose matrices it narrows
    title: ClassVar[str] = "Hidden width"
    summary: ClassVar[str] = (
        "Removes dimensions of the residual stream everywhere: every matrix, the embedding and the head are smaller."
    )
    source: ClassVar[str] = "Muralidharan et al. 2024 (Minitron)"
    decoders_only: ClassVar[str] = (
        "a decoder with RMSNorm: the LayerNorm of an encoder takes off a mean over all of them"
    )

    ratio: float = Field(0.1, gt=0.0, lt=1.0, description="share of the dimensions")
    by: WidthRanking = Field(
        "activation",
        description="what ranks them: the mean size after every norm, the norm of their weights, or chance",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description=SEED_NOTE)

    @property
    def label(self) -> str:
        return f"{self.ratio:.0%} less width" + ranked(self.by, "activation")

    def kept(self, hidden: int) -> int:
        """How many dimensions stay."""
        return neurons_kept(hidden, self.ratio)

    def refuse(self, facts: ModelFacts) -> str | None:
        if facts.experts > 1:
            return EXPERTS_INSTEAD
        if self.kept(facts.hidden) < 1:
            return (
                f"a ratio that leaves at least one of {facts.hidden} dimensions, so at most {1 - 1 / facts.hidden:.3g}"
            )
        if self.kept(facts.hidden) == facts.hidden:
            return f"a ratio of at least {1 / facts.hidden:.2g}: as it is nothing would go"
        return None
