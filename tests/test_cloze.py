"""Cloze items out of text: the last word has stood before, and equal text gives equal items."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.cloze import FEWEST_WORDS, MOST_WORDS, cloze_items
from backend.texts import reference_english

FILLER = "many people walked along the quiet river and talked about weather while children played near old trees"


def paragraph(word: str) -> str:
    return f"The {word} was old. In the morning {FILLER} for hours. Then all of them went home to see the {word}."


def test_an_item_is_a_passage_without_its_last_word() -> None:
    (item,) = cloze_items(paragraph("lantern"), 9)
    assert item.word == "lantern"
    assert item.passage.startswith("The lantern was old.")
    assert item.passage.endswith("to see the")


def test_what_cannot_be_told_from_the_passage_is_no_item() -> None:
    assert cloze_items(paragraph("lantern").removesuffix("lantern.") + "market.", 9) == []
    assert cloze_items(paragraph("map"), 9) == []  # three letters
    assert cloze_items("The lantern is a lantern.", 9) == []  # too short


def test_items_are_taken_evenly_and_the_same_each_time() -> None:
    words = [f"{name}stone" for name in ("red", "blue", "green", "white", "black", "grey")]
    text = "\n\n".join(paragraph(word) for word in words)
    assert [item.word for item in cloze_items(text, 3)] == ["redstone", "greenstone", "blackstone"]
    assert cloze_items(text, 3) == cloze_items(text, 3)
    assert [item.word for item in cloze_items(text, 99)] == words


def test_the_shipped_english_has_enough_of_them() -> None:
    items = cloze_items(reference_english(), 150)
    assert len(items) == 150
    assert len({item.passage for item in items}) == 150
    for item in items:
        assert FEWEST_WORDS <= len(item.passage.split()) + 1 <= MOST_WORDS
        assert item.word.isalpha()


@given(st.text(), st.integers(0, 20))
def test_any_text_gives_items_or_none(text: str, count: int) -> None:
    assert len(cloze_items(text, count)) <= count
