"""Sentences for encoders: cut out of documents, tokenized once, in batches by step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backend.engine.training.order import place_of

BLANK = -1  # stands where a shorter sentence of a batch has no token
_SHORTEST, _MOST = 20, 1000  # characters; what is shorter is a heading, what is longer no sentence
_END = re.compile(r"(?<=[.!?])\s+")


def sentences_of(documents: Iterable[str]) -> Iterator[str]:
    """The sentences of documents, white space made even."""
    for document in documents:
        for sentence in _END.split(" ".join(document.split())):
            if _SHORTEST <= len(sentence) <= _MOST:
                yield sentence


@dataclass(frozen=True)
class SentenceRows:
    """Token ids of sentences, whose order the seed decides."""

    rows: list[list[int]] = field(repr=False)
    seed: int

    @property
    def total(self) -> int:
        """Tokens of all."""
        return sum(len(row) for row in self.rows)

    @property
    def count(self) -> int:
        """How many sentences there are."""
        return len(self.rows)

    def batch(self, step: int, size: int) -> Tensor:
        """The sentences (B, T) of a step, as long as the longest of them, `BLANK` behind the shorter ones."""
        numbers = range(step * size, (step + 1) * size)
        chosen = [self.rows[place_of(number, self.count, self.seed)] for number in numbers]
        made = torch.full((size, max(len(row) for row in chosen)), BLANK)
        for place, row in enumerate(chosen):
            made[place, : len(row)] = torch.tensor(row)
        return made
