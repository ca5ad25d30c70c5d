"""Assistants on the way to a student: what each of them loses, and whose way cannot be divided."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.stages import Stages, between


def student(**switches: dict[str, Any]) -> Recipe:
    return Recipe.read({"switches": switches})


@given(count=st.integers(1, 12), assistants=st.integers(0, 8))
def test_layers_go_a_few_at_a_time(count: int, assistants: int) -> None:
    found = between(student(drop_layers={"count": count}), assistants)
    lost = [way.student.switches["drop_layers"].model_dump()["count"] for way in found]
    assert lost == sorted(set(lost))
    assert all(0 < one < count for one in lost)
    assert len(found) <= assistants
    Stages(assistants=found)  # leaves tokens to the student


def test_one_layer_at_a_time() -> None:
    found = between(student(drop_layers={"count": 4, "remove": "4-7"}), 3)
    assert [way.student.switches["drop_layers"].model_dump()["remove"] for way in found] == ["7", "6-7", "5-7"]
    assert [way.share for way in found] == [0.25] * 3


def test_what_cannot_be_divided_is_done_from_the_first_stage_on() -> None:
    (found,) = between(student(prune_neurons={"ratio": 0.5}, kv_heads={"count": 2}), 1)
    assert found.student.switches["prune_neurons"].model_dump()["ratio"] == 0.25
    assert found.student.switches["kv_heads"].model_dump()["count"] == 2


@pytest.mark.parametrize("switches", [{}, {"kv_heads": {"count": 2}}, {"prune_heads": {"ratio": 0.0, "remove": "0:1"}}])
def test_without_anything_to_divide_it_says_what_is_missing(switches: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="fewer layers, heads or neurons"):
        between(student(**switches), 2)
