"""What quantization-aware training may be asked for, with what, and of which model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from backend.recipe.base import RecipeError
from backend.recipe.method import Method
from backend.recipe.methods.qat import Qat
from backend.recipe.recipe import Recipe
from backend.recipe.training import Training
from backend.techniques.base import Subject


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_the_conversion_races_in_the_place_of_the_original(bits: int) -> None:
    method = Qat.read({"bits": bits})
    recipe = Recipe.read({"switches": {"trained": {"name": "x"}} | method.conversion})
    assert recipe.pipeline[-1] == method.switch


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"bits": 5}, "methods.qat.bits"),
        ({"bits": 8, "head": "int4"}, "methods.qat.head"),
        ({"bits": 2, "activations": "int8"}, "methods.qat.activations"),
        ({"freeze": 1}, "methods.qat.freeze"),
    ],
)
def test_what_cannot_be_is_a_card(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Training.read({"name": "x", "methods": {"qat": fields}})
    assert caught.value.field == field


def test_zeros_need_a_symmetric_grid() -> None:
    student = {"switches": {"magnitude": {"ratio": 0.5}}}
    with pytest.raises(RecipeError, match="no exact zero"):
        Training.read({"name": "x", "student": student, "methods": {"qat": {}}})
    Training.read({"name": "x", "student": student, "methods": {"qat": {"symmetric": True}}})
    Training.read({"name": "x", "student": student, "methods": {"qat": {"bits": 8}}})


class Other(Method):
    """Stands for a method by its kind alone."""

    kind: ClassVar[str] = ""
    title: ClassVar[str] = "Other"


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("lora", {"symmetric": True}, "adapters"),
        ("movement", {}, "no exact zero"),
        ("gradual_magnitude", {}, "no exact zero"),
        ("movement", {"symmetric": True}, ""),
        ("gqa", {}, ""),
    ],
)
def test_what_stands_beside_it(kind: str, fields: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Other, "kind", kind)
    reason = Qat(**fields).clash(Other()) or ""
    assert said in reason
    assert bool(said) == bool(reason)


def test_a_model_that_its_switch_refuses_is_refused(tiny_llama: Subject) -> None:
    def refused(fields: dict[str, Any], **changes: Any) -> str:
        return Qat(**fields).refuse(replace(tiny_llama.facts, **changes)) or ""

    assert not refused({})
    assert "does not divide the hidden size 64" in refused({"group_size": 128})
    assert "int4 kernel" in refused({"bits": 2}, devices=("cuda:0", "cpu"))
    assert "saved with its weights converted" in refused({"bits": 8}, held_as="{}", packed=True)
