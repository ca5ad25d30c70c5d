"""The longest context that fits: the last token whose cache still does, and what ends no text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend.forecast import forecast_lane
from backend.recipe.recipe import Recipe
from backend.room import ENDLESS, longest_that_fits
from tests.test_forecast import MHA

ROOM = 2 * 10**9


def recipe(**switches: Any) -> Recipe:
    return Recipe.read({"switches": switches})


@pytest.mark.parametrize(
    "asked", [recipe(), recipe(kv_heads={"count": 2}), recipe(quantized_cache={}), recipe(draft_model={})]
)
def test_one_more_token_would_not_fit(asked: Recipe) -> None:
    fits = longest_that_fits(MHA, asked, 16, ROOM)
    assert 0 < fits < ENDLESS
    assert forecast_lane(MHA, asked, fits, prompt=16).run_bytes <= ROOM
    least = 64  # a packed block may weigh less than its tokens in full, so the step is not always one token
    assert forecast_lane(MHA, asked, fits + least, prompt=16).run_bytes > ROOM


def test_fewer_heads_are_a_longer_context_in_proportion() -> None:
    whole, shared = (longest_that_fits(MHA, asked, 16, ROOM) for asked in (recipe(), recipe(kv_heads={"count": 1})))
    assert 8 * whole <= shared < 8.5 * whole  # the weights of seven heads are room too


def test_a_window_ends_no_text() -> None:
    assert longest_that_fits(MHA, recipe(window_cache={"window": 64}), 16, ROOM) == ENDLESS
    slides = replace(MHA, sliding_window=32, sliding_layers=MHA.layers)
    assert longest_that_fits(slides, recipe(), 16, ROOM) == ENDLESS


def test_weights_that_do_not_fit_leave_no_room() -> None:
    assert longest_that_fits(MHA, recipe(), 16, 10**6) == 0
