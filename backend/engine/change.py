"""A lane's model as it is asked for: loaded where its recipe says, then changed by every switch in order."""

from __future__ import annotations

from collections.abc import Callable

from backend.engine.load import load
from backend.engine.memory import MemoryMeter, give_back
from backend.modelref import ModelRef
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch

Progress = Callable[[float, str], None]


def load_for(race: Race, recipe: Recipe, ref: ModelRef, progress: Progress) -> Subject:
    """The race's model on the recipe's device."""
    device = getattr(recipe.get("device"), "name", None)
    return load(ref, device=device, trust_remote_code=race.trust_remote_code, progress=progress)


def change(subject: Subject, recipe: Recipe, progress: Progress, meter: MemoryMeter) -> None:
    """Apply the recipe in place; what loading and packing took is not what running takes, so the peak begins anew."""
    subject.progress = progress
    for switch in recipe.pipeline:
        progress(0.0, switch.title)
        apply_switch(subject, switch)
    give_back()
    meter.start_peak()
