"""Heads and layers by number: read, written the one way, and refused with what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.recipe.base import RecipeError
from backend.recipe.named import read_heads, read_layers, write_heads, write_layers
from backend.recipe.recipe import Recipe


@given(st.dictionaries(st.integers(0, 1023), st.sets(st.integers(0, 1023), min_size=1), max_size=5))
def test_what_is_written_is_read_again(named: dict[int, set[int]]) -> None:
    assert read_heads(write_heads(named), "x") == {layer: tuple(sorted(own)) for layer, own in sorted(named.items())}
    layers = set(named)
    assert read_layers(write_layers(layers), "x") == tuple(sorted(layers))


def test_equal_choices_have_equal_keys() -> None:
    first = Recipe.read({"switches": {"prune_heads": {"remove": "2:0  0:3,1,2 0:2"}}})
    second = Recipe.read({"switches": {"prune_heads": {"remove": "0:1-3 2:0"}}})
    assert first.key == second.key
    assert first.switches["prune_heads"].model_dump()["remove"] == "0:1-3 2:0"


@pytest.mark.parametrize("text", ["0", "0:", ":1", "a:1", "0:1-", "0:3-1", "0:1;2", "0:9999", "-1:0", "²:1"])
def test_heads_that_cannot_be_read_name_their_entry(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.read({"switches": {"prune_heads": {"remove": f"5:5 {text}"}}})
    assert caught.value.field == "switches.prune_heads.remove"
    assert caught.value.value == text


@pytest.mark.parametrize("text", ["a", "3-1", "1:2", "5000", "1--2"])
def test_layers_that_cannot_be_read_name_their_entry(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.read({"switches": {"drop_layers": {"keep": text}}})
    assert (caught.value.field, caught.value.value) == ("switches.drop_layers.keep", text)


@pytest.mark.parametrize(
    "switches",
    [{"prune_heads": {"remove": "0:1 3:2", "keep": "3:0-4"}}, {"drop_layers": {"remove": "4", "keep": "3-5"}}],
)
def test_nothing_is_removed_and_kept(switches: dict[str, dict[str, str]]) -> None:
    with pytest.raises(RecipeError, match="in remove and in keep"):
        Recipe.read({"switches": switches})
