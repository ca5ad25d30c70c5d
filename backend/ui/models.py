"""What the page knows of a model before it is loaded: facts, examples, and forecasts in words."""

from __future__ import annotations

import streamlit as st

from backend import catalog
from backend.ceiling import decode_round
from backend.devices import free_bytes
from backend.forecast import Forecast, forecast, forecast_lane, precisions
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Group
from backend.texts import examples
from backend.ui.figures import count, ratio, size

KEEP_S = 60.0  # how long the answer about one model is kept: a folder may change, a hub may come back
LEAST = 0.001  # a change below this share is no effect
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
    heads = f"{facts.heads} heads"
    if facts.task == "decoder":
        heads += f", {facts.kv_heads} KV head{'s' if facts.kv_heads > 1 else ''}"
    weights = ", ".join(f"{name} {size(held)}" for name, held in precisions(facts).items())
    random = " Random weights: speed and memory only, quality has no meaning." if facts.random_weights else ""
    kind = "An encoder: sentences become vectors. " if facts.task == "encoder" else ""
    shape = f"{kind}{count(facts.parameters)} parameters, {facts.layers} layers, {heads}, context {facts.context:,}"
    return f"{shape}. Weights, predicted: {weights}.{random}"


def effect_words(facts: ModelFacts | None, recipe: Recipe, tokens: int) -> str:
    """What a recipe does to memory and to the decode ceiling: '-74 MB, decode ceiling 3.5x, predicted'.

    'no effect predicted' where both stay; '' where nothing is known.
    """
    if facts is None:
        return ""
    changed, plain = (_held(facts, one.model_dump_json(), tokens) for one in (recipe, Recipe()))
    if changed is None or plain is None:
        return ""
    guesses = any(switch.group == Group.DRAFT for switch in recipe.pipeline)
    told = []
    if abs(change := changed[0] - plain[0]) >= LEAST * plain[0]:
        told.append(f"{'+' if change > 0 else ''}{size(change)}")
    if facts.task == "decoder" and changed[1] == plain[1] and abs(factor := plain[2] / changed[2] - 1) >= LEAST:
        told.append(f"decode ceiling {ratio(factor + 1)}{' if every guess is right' if guesses else ''}")
    return f"{', '.join(told)}, predicted" if told else "no effect predicted"


def lane_words(facts: ModelFacts | None, recipe: Recipe, tokens: int) -> str:
    """What a lane holds and how its ceiling stands: '34.1 MB for weights and cache, decode ceiling 3.5x, predicted'."""
    if facts is None:
        return ""
    changed, plain = (_held(facts, one.model_dump_json(), tokens) for one in (recipe, Recipe()))
    if changed is None or plain is None:
        return ""
    if facts.task == "encoder":
        return f"{size(changed[0])} for weights, predicted"
    same = changed[1] == plain[1] and recipe.switches
    ceiling = f", decode ceiling {ratio(plain[2] / changed[2])} the unchanged model's" if same else ""
    return f"{size(changed[0])} for weights and cache{ceiling}, predicted"


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
def _held(facts: ModelFacts, recipe: str, tokens: int) -> tuple[int, str, float] | None:
    """Predicted bytes of weights and cache, the device, and bytes that must move a token.

    None where the recipe does not fit the model or names no known draft.
    """
    read = Recipe.model_validate_json(recipe)
    try:
        read.check(facts)
        lane: Forecast = forecast_lane(facts, read, tokens)
        moved = decode_round(facts, read, tokens).bytes_per_token
    except RecipeError:
        return None
    return lane.weights_bytes + lane.kv_bytes, lane.device, moved
