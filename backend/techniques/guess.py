"""What speculation is made of: a guess, who guesses, and who chooses how many tokens are guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor
from transformers import Cache

Source = Literal["draft", "lookup", "layers"]  # a draft model, a copy of earlier text, some of the model's own layers


@dataclass(frozen=True)
class Guess:
    """Tokens a proposer guessed: one after the other, or a tree of several candidates a place.

    `parents[i]` is the guess that guess i follows, always one before it, or -1 for the last token of the text; None is
    a chain. `probabilities` (n, V) is float32 on the target's device, row i the full distribution that token i was
    drawn from; siblings were drawn from the same row one after the other, without replacement. None means that the
    guesses are certain (a point mass each), as a copy from the prompt is.
    """

    tokens: list[int]
    probabilities: Tensor | None = None
    parents: list[int] | None = None

    @property
    def ways(self) -> list[list[int]]:
        """For the text itself and then for each guess: the tokens guessed on the way to it, its own included."""
        found: list[list[int]] = [[]]
        for index, token in enumerate(self.tokens):
            parent = index - 1 if self.parents is None else self.parents[index]
            found.append([*found[parent + 1], token])
        return found

    @property
    def depth(self) -> int:
        """Most tokens in a row."""
        return len(self.tokens) if self.parents is None else max(map(len, self.ways))

    def after(self, index: int) -> list[int]:
        """The guesses that follow guess `index` (-1: the text), in the order in which they were drawn."""
        if self.parents is None:
            return [index + 1] if index + 1 < len(self.tokens) else []
        return [child for child, parent in enumerate(self.parents) if parent == index]


class Chooser(Protocol):
    """Chooses tokens as the race's sampling asks: guesses made by it are the likeliest to be kept."""

    greedy: bool

    def draw(self, logits: Tensor, after: Sequence[Tensor] = (), count: int = 1) -> tuple[Tensor, Tensor | None]:
        """Choose `count` different tokens (1, count) from raw logits (1, V), and the row (1, V) they were drawn from.

        Greedy takes the likeliest and has no row. `after` are the tokens (1, 1) guessed since the text so far.
        """


class Pacer(Protocol):
    """Decides how many tokens are guessed, round by round. All times in seconds on the decoder's own clock."""

    def choose(self, most: int) -> int:
        """How many tokens to guess in a row, 0 to `most`."""

    def note_plain(self, seconds: float, looking_s: float) -> None:
        """Hear of a one-token step, and of what it cost to find no guess for it."""

    def note_round(self, guess_s: float, verify_s: float, length: int, accepted: int, tried: int) -> None:
        """Hear of a round: guesses in a row, how many were kept, and how many places were judged."""


class Proposer(Protocol):
    """Guesses the next tokens cheaply. The engine verifies them; lossless whatever is guessed."""

    name: str
    source: Source
    depth: int  # most tokens guessed in a row
    pace: Pacer | None  # None: as many as there can be, every round

    @property
    def width(self) -> int:
        """Most tokens guessed at a time, all candidates counted."""

    def start(self, ids: list[int], cache: Cache) -> None:
        """Begin a new request with the prompt's tokens; `cache` is the model's own, still empty."""

    def propose(self, ids: list[int], chooser: Chooser, most: int) -> Guess:
        """Guess what follows `ids` (all tokens so far, prompt included), at most `most` (1 or more) in a row."""

    def accepted(self, path: Sequence[int]) -> None:
        """Hear which of the last guesses were kept, in order, so that its cache can be cropped and never recomputed."""
