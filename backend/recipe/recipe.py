"""The recipe: what is asked of one lane."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import Field, SerializeAsAny, field_serializer, field_validator, model_validator

from backend.recipe.base import Config, RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.kinds import read_each
from backend.recipe.switch import ONE_OF, Switch, read_switch


class Recipe(Config):
    """The switches of one lane by their kind; an empty recipe is the model as it was loaded, in fp32 on a CPU.

    >>> Recipe.read({"switches": {"int8_weight_only": {}}}).label
    'int8 weights'
    """

    switches: dict[str, SerializeAsAny[Switch]] = Field(default_factory=dict)

    @field_validator("switches", mode="before")
    @classmethod
    def _read_switches(cls, value: Any) -> Any:
        return read_each(value, Switch, read_switch, "switches", '{"int8_weight_only": {}}')

    @field_serializer("switches")
    def _write_switches(self, value: dict[str, Switch]) -> dict[str, dict[str, Any]]:
        return {kind: switch.model_dump(mode="json") for kind, switch in value.items()}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        chosen = list(self.switches.values())
        for index, first in enumerate(chosen):
            for second in chosen[index + 1 :]:
                reason = first.clash(second) or second.clash(first)
                if first.group == second.group and first.group in ONE_OF:
                    reason = f"only one choice of {first.group} can take effect"
                if reason:
                    pair = f"{first.kind} + {second.kind}"
                    raise RecipeError(f"switches.{second.kind}", pair, f"one of the two: {reason}", "Switch one off.")
        return self

    @property
    def pipeline(self) -> list[Switch]:
        """The switches in the order in which they are applied."""
        return sorted(self.switches.values(), key=lambda switch: (switch.order, switch.kind))

    @property
    def label(self) -> str:
        """A short name made of its switches."""
        return ", ".join(switch.label for switch in self.pipeline) or "unchanged"

    @property
    def simulated(self) -> bool:
        """Whether a part of it changes quality only and cannot change speed or memory."""
        every = self.switches.values()
        return any(switch.simulates and not any(other.makes_real(switch) for other in every) for switch in every)

    @property
    def skipped(self) -> float:
        """Share of the layers' weights that are zero and that a kernel need not multiply."""
        every = self.switches.values()
        real = [switch for switch in every if any(other.makes_real(switch) for other in every)]
        return max((switch.zeros.share for switch in real), default=0.0)

    @property
    def key(self) -> str:
        """The hash by which a run is known: equal for equal recipes, whatever the order of their keys."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def check(self, facts: ModelFacts) -> None:
        """Refuse what this model on this machine cannot do, before anything is loaded.

        Raises:
            RecipeError: with the switch's own reason.
        """
        for switch in self.pipeline:
            if reason := switch.unfit(facts):
                raise RecipeError(f"switches.{switch.kind}", _fields(switch), reason, "Change or switch it off.")

    def on(self, facts: ModelFacts) -> Recipe:
        """The recipe with what was done to a saved model's weights before."""
        return (
            Recipe(switches=Recipe.model_validate_json(facts.held_as).switches | self.switches)
            if facts.held_as
            else self
        )

    def get(self, kind: str) -> Switch | None:
        """The switch of that kind, or None."""
        return self.switches.get(kind)


def _fields(switch: Switch) -> str:
    return ", ".join(f"{k}={v}" for k, v in switch.model_dump(mode="json").items()) or "on"
