"""Facts of a model that a switch names: a draft, or a trained one."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache

from backend.catalog import model_facts, resolve
from backend.recipe.facts import ModelFacts

KEEP_S = 60.0


def named_facts(name: str, devices: tuple[str, ...]) -> ModelFacts:
    """Facts of the model of that name, on these devices.

    Raises:
        RecipeError: when it is not there.
    """
    return replace(_kept_facts(name, int(time.monotonic() // KEEP_S)), devices=devices)


@lru_cache(maxsize=32)
def _kept_facts(name: str, minute: int) -> ModelFacts:
    """Facts that are read once a minute: a forecast asks for them many times, and files may change."""
    return model_facts(resolve(name))
