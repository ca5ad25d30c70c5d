"""The room of a context: how many tokens a lane's cache may hold in the memory that is free."""

from __future__ import annotations

from backend.forecast import as_loaded, draft_facts, forecast_lane, kv_bytes
from backend.recipe.facts import ModelFacts
from backend.recipe.recipe import Recipe

ENDLESS = 2**30  # tokens: a cache that has room for so many has stopped growing, or might as well


def longest_that_fits(facts: ModelFacts, recipe: Recipe, prompt: int, free: int) -> int:
    """Predicted tokens of the longest context whose peak of run fits, the lane being alone.

    The model's own longest context is another matter, and often the shorter one.

    Args:
        prompt: tokens that pass through the model in one call.
        free: bytes.
    Returns:
        0 where the weights alone do not fit, `ENDLESS` where the cache ends no text.
    Raises:
        RecipeError: for a draft model that is not there.
    """
    draft = recipe.get("draft_model")
    small = draft_facts(draft, facts.devices) if draft is not None else None

    def cache(tokens: int) -> int:
        own = kv_bytes(facts, recipe, tokens)
        return own + (kv_bytes(small, as_loaded(recipe), tokens) if small else 0)

    left = free - forecast_lane(facts, recipe, 0, prompt=prompt).run_bytes
    fits, breaks = 0, ENDLESS
    if cache(breaks) <= left:
        return ENDLESS
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        fits, breaks = (middle, breaks) if cache(middle) <= left else (fits, middle)
    return fits
