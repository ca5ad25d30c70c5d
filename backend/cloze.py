"""Cloze: passages of real text whose last word a model has to find.

After LAMBADA (Paperno et al. 2016, arXiv:1606.06031), where a passage tells its last word and the last sentence alone
does not. There people chose the passages; here a rule does: the word has stood in the passage before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FEWEST_WORDS, MOST_WORDS = 24, 80  # of a passage
SHORTEST = 4  # characters of the last word: shorter ones tell little
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z])")
_MARKS = ",.;:()'\"“”?!"


@dataclass(frozen=True)
class Cloze:
    """A passage without its last word, and the word."""

    passage: str
    word: str


def cloze_items(text: str, count: int) -> list[Cloze]:
    """At most `count` items, one a paragraph, taken evenly from the whole text: equal text, equal items."""
    found = [item for block in text.split("\n\n") if (item := _item(" ".join(block.split())))]
    if count >= len(found):
        return found
    return [found[place * len(found) // count] for place in range(count)]


def _item(paragraph: str) -> Cloze | None:
    """The longest beginning of a paragraph that ends with a sentence and makes an item."""
    passage, best = "", None
    for sentence in _SENTENCE_END.split(paragraph):
        passage = f"{passage} {sentence}".strip()
        words = passage.split()
        if not words or len(words) > MOST_WORDS:
            break
        last = words[-1].rstrip(".?!")
        earlier = {word.strip(_MARKS).lower() for word in words[:-1]}
        if len(words) >= FEWEST_WORDS and len(last) >= SHORTEST and last.isalpha() and last.lower() in earlier:
            best = Cloze(" ".join(words[:-1]), last)
    return best
