"""Prompt lookup: guesses copied from earlier text that ended in the same tokens (Saxena 2023)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from backend.recipe.switches.draft import PromptLookup
from backend.techniques.base import Effect, Guess, Subject
from backend.techniques.registry import technique


class PromptLookupProposer:
    """Copies what followed the most recent earlier place with the longest matching end, up to `ngram` tokens.

    An index from n-grams to the place after their last occurrence grows with the text; nothing is scanned again.
    """

    name = "prompt lookup"

    def __init__(self, width: int, ngram: int) -> None:
        self.width = width
        self.ngram = ngram
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token that followed it last
        self._indexed = 0  # tokens whose n-grams stand in the index

    def start(self, ids: list[int]) -> None:
        """Forget the last request and index the prompt."""
        self._after.clear()
        self._indexed = 0
        self._index(ids)

    def propose(self, ids: list[int], warp: Callable[[Tensor], Tensor], generator: torch.Generator | None) -> Guess:
        """Copy up to `width` tokens; none where no end of `ids` stood earlier.

        A copy that reaches the end of `ids` goes on with itself, so that a loop of any length is continued.
        """
        self._index(ids)
        for n in range(min(self.ngram, len(ids)), 0, -1):
            place = self._after.get(tuple(ids[-n:]))
            if place is not None:
                copy = ids[place : place + self.width]
                return Guess([copy[i % len(copy)] for i in range(self.width)])
        return Guess([])

    def accepted(self, count: int) -> None:
        """Nothing to do: it keeps no cache."""

    def _index(self, ids: list[int]) -> None:
        """Index the n-grams that end before the last token: each of them has something that follows it."""
        for end in range(self._indexed + 1, len(ids)):
            for n in range(1, min(self.ngram, end) + 1):
                self._after[tuple(ids[end - n : end])] = end
        self._indexed = max(self._indexed, len(ids) - 1)


@technique(PromptLookup)
class PromptLookupDrafting:
    """Puts a prompt lookup into the subject's plan."""

    def apply(self, subject: Subject, switch: PromptLookup) -> None:
        """Make the engine verify copies."""
        subject.plan.proposer = PromptLookupProposer(switch.tokens, switch.ngram)

    def read_back(self, subject: Subject, switch: PromptLookup) -> Effect:
        """Look at the proposer in the plan, and whether the run asked it. Text that repeats nothing has no guesses."""
        proposer = subject.plan.proposer
        if not isinstance(proposer, PromptLookupProposer):
            return Effect(switch.kind, took_effect=False, summary="no prompt lookup in the decode plan")
        run = subject.run
        asked = run is None or run.rounds > 0
        tail = "" if asked else "; the run never asked it"
        return Effect(
            switch.kind,
            took_effect=asked and (proposer.width, proposer.ngram) == (switch.tokens, switch.ngram),
            summary=f"copies up to {proposer.width} tokens after a match of {proposer.ngram} tokens or fewer{tail}",
            facts={
                "proposer": proposer.name,
                "tokens": proposer.width,
                "ngram": proposer.ngram,
                "rounds": run.rounds if run else None,
                "drafted": run.drafted if run else None,
            },
        )
