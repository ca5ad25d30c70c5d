"""The context sweep: what changes as a text gets longer, as a job holds it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from backend.recipe.base import Config, RecipeError
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Group

SHORTEST = 128  # tokens, the first length of every sweep; each further one is twice as long
LONGEST = 4096
SAFE_KLD = 0.01  # nats
READY: dict[str, Recipe] = {  # caches that a page offers
    recipe.label: recipe
    for recipe in (
        Recipe.read({"switches": switches})
        for switches in (
            {"quantized_cache": {"key_bits": 8, "value_bits": 8}},
            {"quantized_cache": {"key_bits": 4, "value_bits": 4}},
            {"quantized_cache": {"key_bits": 4, "value_bits": 2}},
            {"quantized_cache": {"key_bits": 2, "value_bits": 2}},
            {"window_cache": {"window": 256}},
            {"window_cache": {"window": 256, "sinks": 4}},
        )
    )
}


class ContextSweep(Config):
    """What a job of the kind `context` asks for.

    `quality` scores caches against a full one, in the model of the race's baseline; `speed` times every lane.

    >>> ContextSweep.read({"race": {"prompt": "Once", "variants": [{}]}, "ask": "speed"}).longest
    4096
    """

    race: Race
    job: int | None = Field(None, ge=1, description="the inspection that it was asked from")
    ask: Literal["quality", "speed"] = Field("quality", description="KLD of caches, or time and memory of lanes")
    longest: int = Field(LONGEST, ge=SHORTEST, le=131_072, description="tokens of the longest text, where it has them")
    caches: tuple[Recipe, ...] = Field((), max_length=8, description="caches that are scored, one switch each")
    scored: int = Field(64, ge=8, le=SHORTEST // 2, description="tokens scored at the end of each length")
    kld: float = Field(SAFE_KLD, gt=0.0, le=100.0, description="the bound: mean KLD in nats up to which it is safe")

    @model_validator(mode="after")
    def _caches_alone(self) -> Self:
        for recipe in self.caches:
            kinds = [switch.kind for switch in recipe.pipeline if switch.group != Group.CACHE]
            if kinds or not recipe.switches:
                value = ", ".join(kinds) or "no switch"
                raise RecipeError("caches", value, "one switch of the group cache each", "Leave the others to a race.")
        if self.ask == "quality" and not self.caches:
            raise RecipeError("caches", "none", "at least one cache", "Choose the caches to score.")
        kept = [switch for switch in self.race.baseline.pipeline if switch.group == Group.CACHE]
        if self.ask == "quality" and kept:
            remedy = "Race the full cache as the baseline, and inspect that race."
            raise RecipeError(f"baseline.switches.{kept[0].kind}", "on", "a baseline with a full cache", remedy)
        return self
