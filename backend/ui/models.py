"""What the page knows of a model before it is loaded: facts, examples, and forecasts in words."""

from __future__ import annotations

import streamlit as st

from backend import catalog
from backend.devices import free_bytes
from backend.forecast import Forecast, forecast, forecast_lane, precisions
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.texts import examples
from backend.ui.figures import count, size

KEEP_S = 60.0  # how long the answer about one model is kept: a folder may change, a hub may come back
Card = dict[str, str]


@st.cache_data(ttl=KEEP_S, show_spinner="Looking at the model", max_entries=64)
def facts_of(model: str, revision: str | None, trusted: bool) -> tuple[ModelFacts | None, Card | None]:
    """The model's facts, or the card that says why it cannot be used."""
    try:
        return catalog.model_facts(catalog.resolve(model, revision), trusted), None
    except RecipeError as error:
        return None, error.card()


@st.cache_data(ttl=KEEP_S, show_spinner=False, max_entries=64)
def examples_for(model: str) -> list[str]:
    """Prompts to pick from; none for a model that is not there."""
    try:
        return examples(catalog.resolve(model))
    except RecipeError:
        return []


def facts_line(facts: ModelFacts) -> str:
    """The model in one line."""
    heads = f"{facts.heads} heads, {facts.kv_heads} KV head{'s' if facts.kv_heads > 1 else ''}"
    weights = ", ".join(f"{name} {size(held)}" for name, held in precisions(facts).items())
    random = " Random weights: speed and memory only, quality has no meaning." if facts.random_weights else ""
    shape = f"{count(facts.parameters)} parameters, {facts.layers} layers, {heads}, context {facts.context:,}"
    return f"{shape}. Weights, predicted: {weights}.{random}"


def effect_words(facts: ModelFacts | None, recipe: Recipe, tokens: int) -> str:
    """What a recipe does to the memory of weights and cache: '-74 MB, predicted'; '' where nothing is known."""
    if facts is None:
        return ""
    saved = _held(facts, recipe.model_dump_json(), tokens), _held(facts, Recipe().model_dump_json(), tokens)
    if saved[0] is None or saved[1] is None:
        return ""
    change = saved[0] - saved[1]
    if abs(change) < 0.001 * saved[1]:
        return ""
    return f"{'+' if change > 0 else ''}{size(change)}, predicted"


def lane_words(facts: ModelFacts | None, recipe: Recipe, tokens: int) -> str:
    """What a lane holds: '34.1 MB for weights and cache, predicted'."""
    held = _held(facts, recipe.model_dump_json(), tokens) if facts else None
    return "" if held is None else f"{size(held)} for weights and cache, predicted"


def fit_words(facts: ModelFacts | None, race: Race) -> str:
    """Whether all lanes together fit into what is free."""
    if facts is None:
        return ""
    try:
        predicted = forecast(race, facts)
    except RecipeError:  # a draft that cannot be found; racing says so with a card
        return ""
    lines = []
    for device in sorted({lane.device for lane in predicted.lanes}):
        need, free = predicted.peak_bytes(device), free_bytes(device)
        left = "" if free is None else f" of {size(free)} free"
        lines.append(f"{len(race.lanes)} lanes together: {size(need)}{left} on {device}, predicted.")
    return " ".join(lines)


@st.cache_data(ttl=KEEP_S, show_spinner=False, max_entries=512)
def _held(facts: ModelFacts, recipe: str, tokens: int) -> int | None:
    """Predicted bytes of weights and cache; None where the recipe does not fit the model or names no known draft."""
    read = Recipe.model_validate_json(recipe)
    try:
        read.check(facts)
        lane: Forecast = forecast_lane(facts, read, tokens)
    except RecipeError:
        return None
    return lane.weights_bytes + lane.kv_bytes
