"""Prompt lookup: guesses copied from earlier text that ended in the same tokens (Saxena 2023)."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import Cache

from backend.recipe.switches.draft import PromptLookup
from backend.techniques.base import Effect, Subject
from backend.techniques.draft.plan import drafting, seen_facts, tail, took
from backend.techniques.guess import Chooser, Guess, Pacer, Source
from backend.techniques.registry import technique

PLACES = 8  # of an n-gram that are remembered, the latest


class PromptLookupProposer:
    """Copies what followed the most recent earlier place with the longest matching end, up to `ngram` tokens.

    An index from n-grams to the places after them grows with the text; nothing is scanned again. With `branches` above
    1 the next places follow as further candidates, where their copies differ.
    """

    name = "prompt lookup"
    source: Source = "lookup"

    def __init__(self, depth: int, ngram: int, branches: int = 1, pace: Pacer | None = None) -> None:
        self.depth = depth
        self.ngram = ngram
        self.branches = branches
        self.pace = pace
        self._after: dict[tuple[int, ...], list[int]] = {}  # n-gram -> indices of the tokens that followed it
        self._indexed = 0  # tokens whose n-grams stand in the index

    @property
    def width(self) -> int:
        """Most tokens guessed at a time."""
        return self.depth * self.branches

    def start(self, ids: list[int], cache: Cache) -> None:
        """Forget the last request and index the prompt."""
        self._after.clear()
        self._indexed = 0
        self._index(ids)

    def propose(self, ids: list[int], chooser: Chooser, most: int) -> Guess:
        """Copy up to `most` tokens; none where no end of `ids` stood earlier.

        A copy that reaches the end of `ids` goes on with itself, so that a loop of any length is continued.
        """
        self._index(ids)
        copies: list[list[int]] = []
        for n in range(min(self.ngram, len(ids)), 0, -1):
            for place in reversed(self._after.get(tuple(ids[-n:]), ())):
                copy = ids[place : place + most]
                long = [copy[i % len(copy)] for i in range(most)]
                if long not in copies:
                    copies.append(long)
                if len(copies) == self.branches:
                    return joined(copies)
        return joined(copies)

    def accepted(self, path: Sequence[int]) -> None:
        """Nothing to do: it keeps no cache."""

    def _index(self, ids: list[int]) -> None:
        """Index the n-grams that end before the last token: each of them has something that follows it."""
        for end in range(self._indexed + 1, len(ids)):
            for n in range(1, min(self.ngram, end) + 1):
                places = self._after.setdefault(tuple(ids[end - n : end]), [])
                places.append(end)
                del places[:-PLACES]
        self._indexed = max(self._indexed, len(ids) - 1)


def joined(copies: list[list[int]]) -> Guess:
    """Copies as one guess: a chain where there is one, otherwise a tree in which common beginnings stand once."""
    if len(copies) < 2:
        return Guess(copies[0] if copies else [])
    tokens: list[int] = []
    parents: list[int] = []
    known: dict[tuple[int, int], int] = {}  # (parent, token) -> guess
    for copy in copies:
        at = -1
        for token in copy:
            if (at, token) not in known:
                known[at, token] = len(tokens)
                tokens.append(token)
                parents.append(at)
            at = known[at, token]
    return Guess(tokens, None, parents)


@technique(PromptLookup)
class PromptLookupDrafting:
    """Puts a prompt lookup into the subject's plan."""

    def apply(self, subject: Subject, switch: PromptLookup) -> None:
        """Make the engine verify copies.

        Raises:
            RecipeError: when no tree can be verified where one is asked for.
        """
        pace = drafting(subject, switch)
        subject.plan.proposer = PromptLookupProposer(switch.tokens, switch.ngram, switch.branches, pace)

    def read_back(self, subject: Subject, switch: PromptLookup) -> Effect:
        """Look at the proposer in the plan, and whether the run asked it. Text that repeats nothing has no guesses."""
        proposer = subject.plan.proposer
        if not isinstance(proposer, PromptLookupProposer):
            return Effect(switch.kind, took_effect=False, summary="no prompt lookup in the decode plan")
        return Effect(
            switch.kind,
            took_effect=took(subject, switch) and proposer.ngram == switch.ngram,
            summary=f"after a match of {proposer.ngram} tokens or fewer it copies {tail(subject, switch)}",
            facts=seen_facts(subject) | {"ngram": proposer.ngram},
        )
