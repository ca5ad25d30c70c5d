"""The link that holds a whole race, and the sheet behind the form: both ways, for any race."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.recipe.base import RecipeError
from backend.recipe.race import Race, all_presets
from backend.ui.form.sheet import race_data, values_of, with_lane, without_lane
from backend.ui.share import pack, unpack

RECIPES = st.sampled_from(
    [recipe for preset in all_presets().values() for recipe in (preset.race.baseline, *preset.race.variants)]
)
PROMPTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1).filter(str.strip)


@st.composite
def races(draw: st.DrawFn) -> Race:
    return Race(
        prompt=draw(PROMPTS),
        seed=draw(st.integers(0, 2**31 - 1)),
        baseline=draw(RECIPES),
        variants=tuple(draw(st.lists(RECIPES, min_size=1, max_size=3))),
        revision=draw(st.none() | st.just("main")),
    )


@given(races())
def test_a_link_holds_the_whole_race(race: Race) -> None:
    text = pack(race)
    assert unpack(text) == race
    assert all(character.isalnum() or character in "-_" for character in text)


@given(races())
def test_the_form_holds_the_whole_race(race: Race) -> None:
    assert Race.read(race_data(values_of(race))) == race


@given(races())
def test_a_lane_more_and_less_gives_the_race_back(race: Race) -> None:
    if len(race.variants) < 3:
        values = with_lane(values_of(race))
        assert Race.read(race_data(values)).variants == (*race.variants, race.variants[-1])
        assert Race.read(race_data(without_lane(values, values["lanes"][-1]))) == race


@given(st.text())
def test_any_other_text_is_refused_as_a_mistake(text: str) -> None:
    with pytest.raises(RecipeError):
        unpack(text)


def test_a_link_that_unfolds_into_all_memory_is_refused() -> None:
    bomb = base64.urlsafe_b64encode(zlib.compress(b" " * 50_000_000)).decode().rstrip("=")
    with pytest.raises(RecipeError, match="a link that Share made"):
        unpack(bomb)


def test_a_link_with_a_race_that_does_not_validate_names_the_field() -> None:
    data = json.dumps({"prompt": "x", "variants": [{"switches": {"prune_heads": {"ratio": 3}}}]}).encode()
    text = base64.urlsafe_b64encode(zlib.compress(data)).decode().rstrip("=")
    with pytest.raises(RecipeError) as caught:
        unpack(text)
    assert "ratio" in caught.value.field
