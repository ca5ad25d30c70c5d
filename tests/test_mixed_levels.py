"""The switch of mixed precision: levels read and written, mistakes named, and what a model cannot have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.recipe import Recipe
from backend.recipe.switches.mixed import LEVELS, MixedPrecision, read_levels, units, write_levels

FACTS = ModelFacts("tiny", "llama", 4, 64, 128, 4, 4, 16, 256, 128, 1000, 100)
LAYERS = st.dictionaries(st.integers(0, 1023).map(str), st.sampled_from([one for one in LEVELS if one != "split"]))
HEADS = st.dictionaries(st.just("head"), st.sampled_from(LEVELS))


def mixed(levels: str = "", **fields: object) -> MixedPrecision:
    return MixedPrecision.read({"levels": levels, **fields}, where="switches.mixed_precision")


@given(LAYERS, HEADS)
def test_what_is_written_is_read_again(layers: dict[str, str], head: dict[str, str]) -> None:
    levels = layers | head
    text = write_levels(levels)
    assert read_levels(text) == levels
    assert write_levels(read_levels(text)) == text


def test_there_is_one_way_to_say_a_thing() -> None:
    first, second = mixed("head:int8, 2:int4 0:int4 1:int4"), mixed("0-1:int4 2:int4 head:int8")
    assert first == second
    assert first.levels == "0-2:int4 head:int8"
    keys = {Recipe(switches={switch.kind: switch}).key for switch in (first, second)}
    assert len(keys) == 1


def test_every_unit_has_a_level() -> None:
    assert units(2) == ["0", "1", "head"]
    assert mixed("1:keep head:int4").by_unit(3) == {"0": "int8", "1": "keep", "2": "int8", "head": "int4"}
    assert mixed(rest="int4").by_unit(1) == {"0": "int4", "head": "int4"}


def test_the_label_says_what_is_mixed() -> None:
    assert mixed("0-2:int4 head:int4 3:keep").label == "mixed: 3 layers and head int4, 1 layer keep, else int8"
    assert mixed().label == "mixed: all int8"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("0", "UNIT:LEVEL"),
        ("x:int4", "UNIT:LEVEL"),
        ("embed:int4", "UNIT:LEVEL"),
        ("-1:int4", "UNIT:LEVEL"),
        ("99999:int4", "UNIT:LEVEL"),
        ("\u0663:int4", "UNIT:LEVEL"),
        ("0:int3", "int4, split, int8, keep"),
        ("head:INT4", "int4, split, int8, keep"),
        ("2:split", "head alone"),
        ("3-1:int4", "low to high"),
        ("0-9999:int4", "below 1024"),
        ("0-3:int4 2:int8", "one level for each unit; 2"),
        ("head:int4 head:int4", "one level for each unit; head"),
    ],
)
def test_a_mistake_is_a_card(text: str, word: str) -> None:
    with pytest.raises(RecipeError) as caught:
        mixed(text)
    assert caught.value.field == "switches.mixed_precision.levels"
    assert word in caught.value.allowed
    assert caught.value.value in text


def test_a_map_in_the_place_of_the_text_is_a_card() -> None:
    with pytest.raises(RecipeError) as caught:
        MixedPrecision.read({"levels": {"0": "int4"}}, where="switches.mixed_precision")
    assert caught.value.field == "switches.mixed_precision.levels"


def test_a_layer_that_the_model_has_not_is_refused() -> None:
    assert mixed("0-3:int4 head:int4").refuse(FACTS) is None
    reason = mixed("3-5:int4").refuse(FACTS)
    assert reason == "layers 0 to 3 and head: there is no layer 4, 5"
    with pytest.raises(RecipeError, match="no layer 4, 5"):
        Recipe(switches={"mixed_precision": mixed("3-5:int4")}).check(FACTS)


def test_nothing_quantized_is_refused() -> None:
    assert "at least one layer" in (mixed(rest="keep").refuse(FACTS) or "")
    assert "at least one layer" in (mixed("0-3:keep head:keep").refuse(FACTS) or "")
    assert mixed("0:int8", rest="keep").refuse(FACTS) is None


def test_a_group_must_divide_the_hidden_size_where_int4_is_asked_for() -> None:
    facts = replace(FACTS, hidden=96)
    assert mixed(group_size=64).refuse(facts) is None
    assert "does not divide" in (mixed("0:int4", group_size=64).refuse(facts) or "")


def test_a_split_head_is_refused_where_it_cannot_be() -> None:
    facts = replace(FACTS, hidden=128)
    assert mixed("head:split").refuse(facts) is None
    assert "does not divide" in (mixed("head:split").refuse(replace(FACTS, hidden=96)) or "")
    assert "random" in (mixed("head:split").refuse(replace(facts, random_weights=True)) or "")
    assert "CPU only" in (mixed("head:split").refuse(replace(facts, devices=("cuda", "cpu"))) or "")


@pytest.mark.parametrize(("field", "value"), [("likely", 0.0), ("likely", 0.6), ("split_group", 48), ("rest", "split")])
def test_a_split_outside_its_limits_is_a_card(field: str, value: object) -> None:
    with pytest.raises(RecipeError) as caught:
        mixed("head:split", **{field: value})
    assert caught.value.field == f"switches.mixed_precision.{field}"


def test_it_stands_beside_no_other_precision() -> None:
    with pytest.raises(RecipeError, match="only one choice of precision"):
        Recipe.read({"switches": {"mixed_precision": {}, "int8_weight_only": {}}})
