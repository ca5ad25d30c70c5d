"""The sentences that encoders are measured on, of this project's own writing: topics, and pairs with a grade.

A grade says how alike the two of a pair are: 4 says the same, 3 much the same, 2 of one kind, 1 hardly, 0 unrelated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Pair:
    """Two sentences and how alike they are, 0 to 4."""

    grade: int
    first: str
    second: str


@dataclass(frozen=True)
class Sentences:
    """All of them. `texts` is what is encoded to be compared: the topics' sentences, then both sides of the pairs."""

    sentences: tuple[str, ...]
    topics: tuple[str, ...]  # one a sentence
    pairs: tuple[Pair, ...]

    @property
    def texts(self) -> list[str]:
        """The topics' sentences one topic after another, the pairs' first sides, the pairs' second sides."""
        return [*self.sentences, *(pair.first for pair in self.pairs), *(pair.second for pair in self.pairs)]


@cache
def own_sentences() -> Sentences:
    """Read once from the file beside this one."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    placed = [(sentence, topic) for topic, sentences in data["topics"].items() for sentence in sentences]
    pairs = tuple(Pair(int(grade), first, second) for grade, first, second in data["pairs"])
    return Sentences(tuple(sentence for sentence, _ in placed), tuple(topic for _, topic in placed), pairs)
