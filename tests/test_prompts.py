"""Prompt sets as a recipe holds them: every mistake names the field and the line, and many lines answer at once."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.recipe.base import RecipeError
from backend.recipe.prompts import MAX_PROMPTS, prompt_file, prompt_lines
from backend.recipe.race import Race

LINE = st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=("Cs",)), min_size=1).filter(str.strip)


def race(**measure: Any) -> Race:
    return Race.read({"prompt": "Once", "variants": [{}], "measure": measure})


@given(st.lists(LINE, min_size=1, max_size=MAX_PROMPTS), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_lines_come_back_as_they_were_written(lines: list[str], ended: bool, end: str) -> None:
    text = end.join(lines) + (end if ended else "")
    assert prompt_lines(text) == tuple(lines)
    assert prompt_lines(prompt_file("a.txt", text.encode())) == tuple(lines)
    made = race(prompt_set="list", prompts=text)
    assert Race.read(json.loads(made.model_dump_json())) == made


@pytest.mark.parametrize(
    ("measure", "value", "allowed"),
    [
        ({"prompt_set": "list"}, "empty", "one prompt a line"),
        ({"prompt_set": "list", "prompts": " \n "}, "empty", "one prompt a line"),
        ({"prompt_set": "list", "prompts": "a\n\nb"}, "line 2 is empty", "every line"),
        ({"prompt_set": "list", "prompts": "a\nb\n\n"}, "line 3 is empty", "every line"),
        ({"prompt_set": "list", "prompts": "a\0"}, "NUL", "without NUL"),
        ({"prompt_set": "list", "prompts": "a\n" * 10_000}, "10,000 lines", "at most 64"),
        ({"prompt_set": "list", "prompts": "a" * 300_000}, "300,000 characters", "200,000"),
        ({"prompts": "a"}, "a", "prompt set is 'one'"),
        ({"prompt_set": "mix", "prompts": "a"}, "a", "prompt set is 'mix'"),
    ],
)
def test_a_mistake_names_the_field_and_what_is_wrong(measure: dict[str, Any], value: str, allowed: str) -> None:
    began = time.monotonic()
    with pytest.raises(RecipeError) as caught:
        race(**measure)
    assert time.monotonic() - began < 0.5
    card = caught.value.card()
    assert card["field"] == "measure.prompts"
    assert value in card["value"]
    assert allowed in card["allowed"]
    assert card["remedy"].endswith(".")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x89PNG\r\n\x1a\n\xff", "byte 0 is not text"),
        (b"a\0b", "NUL"),
        (b"", "empty"),
        (b"a\n\n", "line 2"),
        (b"x\n" * 10_000, "10,000"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_refused(data: bytes, value: str) -> None:
    with pytest.raises(RecipeError) as caught:
        prompt_file("prompts.bin", data)
    assert value in caught.value.value


def test_a_mode_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        race(prompt_set="many")
    assert caught.value.field == "measure.prompt_set"
    assert "mix" in caught.value.allowed
