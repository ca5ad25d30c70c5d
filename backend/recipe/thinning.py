"""Thinning: a model that is pruned a little, measured, and pruned again, as a job holds it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from backend.recipe.base import Config, RecipeError
from backend.recipe.race import Race
from backend.recipe.switch import Switch
from backend.recipe.switches.layers import DropLayers
from backend.recipe.switches.pruning import PruneHeads, PruneNeurons, Scope

Part = Literal["heads", "neurons", "layers"]
SWITCHES: dict[str, type[Switch]] = {"heads": PruneHeads, "neurons": PruneNeurons, "layers": DropLayers}


class Thinning(Config):
    """What a job of the kind `thin` asks for: the baseline of a race, thinned until its quality budget is spent.

    >>> Thinning.read({"race": {"prompt": "Once", "variants": [{}]}, "part": "layers", "by": "cosine"}).kld
    0.1
    """

    race: Race
    job: int | None = Field(None, ge=1, description="the inspection that it was asked from")
    part: Part = Field("heads", description="what goes")
    by: str = Field("output", max_length=40, description="the ranking, taken anew before every step")
    scope: Scope = Field("global", description="of heads and neurons: as many from every layer, or the lowest of all")
    step: float = Field(0.05, gt=0.0, le=0.5, description="share of the whole that goes in a step, at least one unit")
    most: float = Field(0.5, gt=0.0, lt=1.0, description="share of the whole at which it ends in any case")
    kld: float = Field(0.1, gt=0.0, le=100.0, description="the quality budget: mean KLD in nats at which it stops")

    @model_validator(mode="after")
    def _ranking_fits(self) -> Self:
        cls = SWITCHES[self.part]
        try:
            cls.read({"by": self.by})
        except RecipeError as error:
            raise RecipeError("by", self.by, error.allowed, f"Choose a ranking of {self.part}.") from None
        refuse_pruned(self.race, cls)
        return self


def refuse_pruned(race: Race, cls: type[Switch]) -> None:
    """What is to go must not have gone from the baseline already: its numbers would be those of what is left.

    Raises:
        RecipeError: naming the baseline's switch.
    """
    if cls.kind in race.baseline.switches:
        allowed = "a baseline that has not lost any of them"
        remedy = "Race the whole model as the baseline, and inspect that race."
        raise RecipeError(f"baseline.switches.{cls.kind}", "on", allowed, remedy)
