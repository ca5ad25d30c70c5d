"""Last words on a tiny model with a real tokenizer, and worst tokens told as text."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.catalog import resolve
from backend.cloze import Cloze
from backend.engine.answers import finds_last_word
from backend.engine.load import load
from backend.engine.marker import ASKED_AT_A_TIME, Marker
from backend.engine.text import encode
from backend.engine.worst import Spot, told
from backend.recipe.race import Race
from backend.techniques.base import Subject
from backend.texts import HeldOut

FILLER = "many people walked along the quiet river and talked about weather while children played near old trees"
TEXT = "\n\n".join(
    f"The {word} was in the {place}. In the morning {FILLER} for hours. Then all of them went home to see the {word}."
    for word, place in (("lantern", "harbor"), ("basket", "market"), ("letter", "garden"), ("ladder", "tower"),
                        ("hammer", "mill"), ("bottle", "forest"))
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Subject:
    return load(resolve(str(tiny_folder), None), device="cpu", trust_remote_code=False)


def marker(tiny: Subject, questions: int = 24, storyteller: bool = False) -> Marker:
    measure = {"questions": questions}
    race = Race.read({"model": "tiny", "prompt": "Once", "variants": [{}], "measure": measure})
    return Marker(tiny, race, encode(tiny, "Once"), [1, 2, 3], HeldOut(TEXT, "a test"), storyteller=storyteller)


@torch.inference_mode()
def next_word(tiny: Subject, passage: str) -> str:
    """What the model writes after the passage, greedily."""
    ids = torch.tensor([encode(tiny, passage)])
    return tiny.tokenizer.decode([int(tiny.model(input_ids=ids).logits[0, -1].argmax())])


def test_the_word_that_the_model_writes_is_found_and_another_is_not(tiny: Subject) -> None:
    tried = 0
    for thing, place in itertools.product(("lantern", "basket", "key", "letter"), ("harbor", "market", "mill")):
        story = f"Anna was in the {place}. Ben took the {thing} in the"
        word = next_word(tiny, story)
        if word[:1] == " " and word.strip().isalpha():  # a model that was never trained may write half a word
            tried += 1
            assert finds_last_word(tiny, Cloze(story, word.strip()))
        assert not finds_last_word(tiny, Cloze(story, "Anna" if word.strip() != "Anna" else "Ben"))
    assert tried


def test_last_words_are_asked_a_few_at_a_time_and_every_lane_gets_the_same(tiny: Subject) -> None:
    first, second = marker(tiny), marker(tiny)
    reply = first.cloze()
    assert (reply["done"], reply["total"]) == (ASKED_AT_A_TIME, 6)
    reply = first.cloze()
    assert (reply["done"], reply["total"], len(reply["marks"])) == (6, 6, 6)
    assert reply["right"] == sum(reply["marks"])
    assert reply["protocol"] == "last word of 6 passages of a test, greedy, one call a passage"
    second.cloze()
    assert second.cloze() == reply


def test_storytellers_and_races_without_questions_are_asked_no_last_words(tiny: Subject) -> None:
    assert marker(tiny, storyteller=True).cloze()["total"] == 0
    assert marker(tiny, questions=0).cloze()["total"] == 0
    assert marker(tiny, questions=2).cloze()["total"] == 2


def test_a_worst_token_is_told_as_text(tiny: Subject) -> None:
    before = encode(tiny, "Anna was in the")
    harbor, mill = (encode(tiny, f"Anna was in the {word}")[-1] for word in ("harbor", "mill"))
    spot = Spot(3, tuple(before), harbor, 1.5, 0.6, 0.1, ((harbor, 0.6), (mill, 0.2)), ((mill, 0.7), (harbor, 0.1)))
    data: dict[str, Any] = told(tiny, spot)
    assert data["before"].endswith("Anna was in the")
    assert data["text"].strip() == "harbor"
    assert [(one["text"].strip(), one["p"]) for one in data["variant"]] == [("mill", 0.7), ("harbor", 0.1)]
    assert (data["place"], data["kld"], data["base_p"]) == (3, 1.5, 0.6)
