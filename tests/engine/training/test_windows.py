"""Text of a training: what is held out is never learned from, and a step reads the same windows whenever it comes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.catalog import resolve
from backend.engine.load import load
from backend.engine.training.text import Documents, Windows, digest, read_documents, read_lesson
from backend.modelref import ModelRef
from backend.recipe.base import RecipeError
from backend.techniques.base import Subject
from backend.texts import held_out_text


@pytest.fixture(scope="module")
def teller() -> Subject:
    return load(resolve("storyteller-draft"), device="cpu")


@given(count=st.integers(2, 40), length=st.integers(1, 9), seed=st.integers(0, 9), size=st.integers(1, 7))
def test_every_window_comes_once_before_any_comes_twice(count: int, length: int, seed: int, size: int) -> None:
    windows = Windows(np.arange(count * length + 1, dtype=np.int32), length, seed)
    assert windows.count == count
    steps = -(-count // size)
    rows = [row for step in range(steps) for row in windows.batch(step, size).tolist()]
    assert sorted(row[0] for row in rows[:count]) == list(range(0, count * length, length))
    assert all(row == list(range(row[0], row[0] + length + 1)) for row in rows)
    again = Windows(windows.tokens, length, seed).batch(steps - 1, size)
    assert again.tolist() == windows.batch(steps - 1, size).tolist()


def test_windows_begin_with_the_token_that_opens_texts_and_still_hold_every_token_once() -> None:
    windows = Windows(np.arange(1, 42, dtype=np.int32), 5, 1, (0,))
    rows = [windows.batch(step, 1)[0].tolist() for step in range(windows.count)]
    assert {len(row) for row in rows} == {6}
    assert {row[0] for row in rows} == {0}
    assert sorted(token for row in rows for token in row[1:]) == list(range(1, 41))


def test_stories_to_learn_from_are_others_than_those_that_are_looked_at_and_raced() -> None:
    told = read_documents(ModelRef("storyteller", "shipped"), "", seed=1)
    learned = {digest(story) for story in islice(told.training, 500)}
    assert not learned & {digest(story) for story in told.held_out}
    raced = held_out_text(ModelRef("storyteller", "shipped")).text
    assert raced.startswith(told.held_out[0])


def test_the_language_reference_is_learned_from_behind_what_races_score() -> None:
    ref = ModelRef("other", "folder", Path("/"))
    told = read_documents(ref, "", seed=1)
    raced = held_out_text(ref).text[: 8 * 4096]
    learned = list(told.training)
    assert len(learned) > 500
    assert not any(document in raced for document in learned)


def test_of_ones_own_text_the_hash_decides_and_equal_documents_stand_on_one_side(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("\n\n".join(f"Paragraph {number % 100}." for number in range(400)))
    told = read_documents(ModelRef("x", "folder", tmp_path), str(file), seed=1)
    learned, held = list(told.training), told.held_out
    assert len(learned) + len(held) == 400
    assert held
    assert not set(learned) & set(held)


def test_a_held_out_document_that_comes_up_again_is_dropped_and_counted(teller: Subject) -> None:
    held = "Once there was a lantern in the harbor. The lantern is red."
    others = [f"Once there was a key in the mill. Anna took the key. Ben was in the harbor {n}." for n in range(50)]
    documents = Documents(iter([others[0], held, *others, f" {held}\n"]), [held] * 3, "made up")
    lesson = read_lesson(teller, documents, 10**6, 16, 1, lambda share, text: None)
    assert lesson.dropped == 2
    assert teller.tokenizer is not None
    text = teller.tokenizer.decode(lesson.training.tokens.tolist())
    assert "lantern is red" not in text


def test_no_more_is_read_than_is_asked_for(teller: Subject) -> None:
    told = read_documents(ModelRef("storyteller", "shipped"), "", seed=1)
    lesson = read_lesson(teller, told, 2000, 16, 1, lambda share, text: None)
    assert 2000 < len(lesson.training.tokens) < 3000


def test_too_little_text_is_a_card(teller: Subject) -> None:
    documents = Documents(iter(["Once."]), ["Once there was a lantern in the harbor. " * 4], "made up")
    with pytest.raises(RecipeError, match=r"made up: \d training tokens"):
        read_lesson(teller, documents, 1000, 16, 1, lambda share, text: None)


def test_a_model_without_a_tokenizer_is_a_card(subject_of: Callable[..., Subject]) -> None:
    with pytest.raises(RecipeError, match="a model with a tokenizer"):
        read_lesson(subject_of("llama"), Documents(iter(["a"]), ["b"], "x"), 10, 2, 1, lambda share, text: None)
