"""Held-out texts and example prompts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from backend.modelref import ModelRef
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.storyteller.stories import END
from backend.texts import examples, held_out_text

STORYTELLER = ModelRef("storyteller", "shipped")
OTHER = ModelRef("gemma", "fetched")


def test_shipped_models_are_scored_on_stories() -> None:
    found = held_out_text(STORYTELLER)
    assert found.text.startswith(END + "Once there was a")
    assert len(found.text) > 100_000
    assert "seed" in found.source


def test_others_are_scored_on_plain_english() -> None:
    found = held_out_text(OTHER)
    assert len(found.text) > 100_000
    for code in ("::=", ">>>", "****", "----", "+--"):
        assert code not in found.text
    paragraphs = found.text.split("\n\n")
    assert all(paragraph.endswith((".", "?")) for paragraph in paragraphs)
    assert len(set(paragraphs)) == len(paragraphs)
    assert "Python language reference" in found.source


def test_a_file_of_the_persons_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Grüße.\n", encoding="utf-8")
    assert held_out_text(OTHER, file).text == "Grüße.\n"
    assert "mine.txt" in held_out_text(STORYTELLER, file).source


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff", b"  \n"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "bad.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        held_out_text(OTHER, file)
    assert caught.value.field == "text"


@pytest.mark.parametrize("ref", [STORYTELLER, OTHER])
def test_examples_are_prompts_that_a_race_takes(ref: ModelRef) -> None:
    found = examples(ref)
    assert len(found) == 5
    assert len(set(found)) == 5
    for prompt in found:
        assert Race(prompt=prompt, variants=({"switches": {}},)).prompt == prompt
    words = found[-1].split()
    pairs = list(pairwise(words))
    assert len(set(pairs)) < 0.75 * len(pairs)  # repeats itself


def test_storyteller_examples_end_in_questions() -> None:
    assert all("?" in prompt[-60:] for prompt in examples(STORYTELLER)[:4])
