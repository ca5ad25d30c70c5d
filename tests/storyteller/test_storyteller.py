"""The storyteller: its answers are true, its held-out text is held out, and its words are tokens."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import islice
from typing import Any

import pytest

from backend.storyteller.stories import END, KINDS, exam, held_out_text, stories, tell
from backend.storyteller.world import COLOURS, MOODS, PEOPLE, PLACES, THINGS


class Reader:
    """Reads a story sentence by sentence, knowing nothing of the generator, and answers questions about it."""

    def __init__(self) -> None:
        self.where: dict[str, str] = {}  # of people and of things
        self.holder: dict[str, str | None] = {}
        self.colour: dict[str, str] = {}

    def read(self, sentence: str) -> None:
        for pattern, take_in in self.RULES:
            if found := re.fullmatch(pattern, sentence):
                take_in(self, *found.groups())
                return
        assert sentence + "." in MOODS, f"not understood: {sentence}"

    def _lies(self, thing: str, place: str) -> None:
        self.where[thing], self.holder[thing] = place, None

    def _is(self, thing: str, colour: str) -> None:
        self.colour[thing] = colour

    def _is_in(self, person: str, place: str) -> None:
        self.where[person] = place

    def _seen(self, coloured: str) -> str:
        """The thing's name, once its colour was found to be the one that was told."""
        colour, thing = coloured.split()
        assert self.colour[thing] == colour
        return thing

    def _takes(self, person: str, thing: str, place: str) -> None:
        thing = self._seen(thing)
        assert self.where[person] == self.where[thing] == place
        assert self.holder[thing] is None
        self.holder[thing] = person

    def _gives(self, person: str, thing: str, other: str, place: str) -> None:
        thing = self._seen(thing)
        assert self.holder[thing] == person
        assert self.where[person] == self.where[other] == place
        self.holder[thing] = other

    def _puts_down(self, person: str, thing: str, place: str) -> None:
        thing = self._seen(thing)
        assert self.holder[thing] == person
        assert self.where[person] == place
        self._lies(thing, place)

    def _carries(self, person: str, thing: str, place: str) -> None:
        thing = self._seen(thing)
        assert self.holder[thing] == person
        self.where[person] = self.where[thing] = place

    RULES = (
        (r"Once there was a (\w+) in the (\w+)", _lies),
        (r"The (\w+) is (\w+)", _is),
        (r"([A-Z]\w+) was in the (\w+)", _is_in),
        (r"([A-Z]\w+) (?:went|walked|ran) to the (\w+)", _is_in),
        (r"([A-Z]\w+) (?:took|picked up) the (\w+ \w+) in the (\w+)", _takes),
        (r"([A-Z]\w+) gave the (\w+ \w+) to (\w+) in the (\w+)", _gives),
        (r"([A-Z]\w+) put down the (\w+ \w+) in the (\w+)", _puts_down),
        (r"([A-Z]\w+) carried the (\w+ \w+) to the (\w+)", _carries),
    )

    def answer(self, question: str) -> str:
        subject = re.search(r"(\w+)\?", question).group(1)
        if question.startswith("Who has"):
            return self.holder[subject] or "Nobody"
        return self.colour[subject] if question.startswith("What colour") else self.where[subject]


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"\. ?", text) if part]


def test_the_answers_of_an_exam_are_true() -> None:
    pairs = exam(seed=1000, count=400)
    assert Counter(question.kind for _, question in pairs) == dict.fromkeys(KINDS, 100)
    for story, question in pairs:
        reader = Reader()
        for sentence in sentences(story):
            reader.read(sentence)
        assert question.answer == f" {reader.answer(question.text)}", f"{story} {question.text}"


def test_the_answers_inside_stories_are_true() -> None:
    asked = 0
    for story in islice(stories(seed=5), 150):
        reader = Reader()
        for sentence in sentences(story):
            if "?" in sentence:
                question, answer = sentence.rsplit(" ", 1)
                assert answer == reader.answer(question + " "), story
                asked += 1
            else:
                reader.read(sentence)
    assert asked > 300


def test_a_reader_that_believed_a_wrong_sentence_would_notice() -> None:
    reader = Reader()
    reader.read("Once there was a key in the mill")
    reader.read("Anna was in the tower")
    with pytest.raises(AssertionError):
        reader.read("Anna took the key in the mill")
    with pytest.raises(AssertionError, match="not understood"):
        reader.read("Anna ate the key")


@pytest.mark.parametrize("seed", [0, 7, 999])
def test_seeds_of_the_training_range_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="held-out seeds start at 1000"):
        exam(seed, 1)
    with pytest.raises(ValueError, match="held-out seeds start at 1000"):
        held_out_text(seed, 1)


def test_the_same_seed_tells_the_same_and_another_one_something_else() -> None:
    assert exam(1000, 20) == exam(1000, 20)
    assert exam(1000, 20) != exam(1001, 20)
    assert held_out_text(1000, 3) == held_out_text(1000, 3)
    assert held_out_text(1000, 3).count(END) == 3


def test_held_out_stories_were_not_trained_on() -> None:
    trained = set(islice(stories(seed=17), 2000))
    held_out = held_out_text(2000, 200).split(END)[1:]
    assert not trained & set(held_out)


def test_every_word_of_the_world_is_one_token(storyteller_tokenizer: Any) -> None:
    for word in (*PLACES, *THINGS, *COLOURS, *PEOPLE, "Nobody", "gave", "carried", "took"):
        assert len(storyteller_tokenizer.encode(f" {word}", add_special_tokens=False)) == 1, word
    assert len(storyteller_tokenizer.encode(END, add_special_tokens=False)) == 1


def test_any_text_comes_back_from_the_tokenizer(storyteller_tokenizer: Any) -> None:
    story = tell(random.Random(3), events=10)
    for text in (story, "Zürich, 42 % & <b>ß</b>\n\t日本"):
        ids = storyteller_tokenizer.encode(text, add_special_tokens=False)
        assert storyteller_tokenizer.decode(ids) == text
        assert max(ids) < 768
