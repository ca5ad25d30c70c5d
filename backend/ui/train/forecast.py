"""What a training will need in memory, before it starts, beside what is free."""

from __future__ import annotations

from dataclasses import asdict

import streamlit as st

from backend.devices import free_bytes
from backend.forecast import lane_device
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.training import Training
from backend.trainforecast import TrainForecast, check_training_memory, forecast_training
from backend.ui.figures import count, size
from backend.ui.models import facts_line, facts_of
from backend.ui.text import plain
from backend.ui.train.bars import draw_bars

Card = dict[str, str]


def draw_forecast(asked: Training) -> Card | None:
    """The training in a line and its memory, predicted; the card of what cannot be trained."""
    facts, card = facts_of(asked.model, asked.revision, asked.trust_remote_code)
    if facts is None:
        return card
    pace = asked.pace
    line = f"{asked.label}: {asked.steps:,} steps of {pace.step_tokens:,} tokens, {count(pace.tokens)} in all."
    st.caption(plain(f"{line[:1].upper()}{line[1:]} {facts_line(facts)}"))
    student = facts
    if asked.smaller:
        found, card = facts_of(asked.smaller, None, False)
        if found is None:
            return card
        student = found
    try:
        asked.check(facts)
        predicted = forecast_training(asked, facts, student)
    except RecipeError as error:
        return error.card()
    _draw(asked, facts, predicted)
    try:
        check_training_memory(asked, facts, student)
    except RecipeError as error:
        return error.card()
    return None


def _draw(asked: Training, facts: ModelFacts, predicted: TrainForecast) -> None:
    device = lane_device(facts, asked.student)
    free = free_bytes(device)
    beside = "" if free is None else f" of {size(free)} free on {device}"
    with st.expander(f"Memory: {size(predicted.total_bytes)}{beside}, predicted"):
        held = {name.removesuffix("_bytes"): value for name, value in asdict(predicted).items()}
        draw_bars("Predicted memory by part", held, "train-forecast")
