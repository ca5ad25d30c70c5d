"""The worst tokens: where a variant leaves the baseline furthest, kept with what stood before them."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from backend.engine.text import Pieces, decode
from backend.techniques.base import Subject

KEPT = 8
CONTEXT = 12  # tokens before the place

Choice = tuple[int, float]  # token, probability


@dataclass(frozen=True)
class Spot:
    """One place: `before` are the tokens that led to it, `token` is the one that the scored text has there."""

    place: int
    before: tuple[int, ...]
    token: int
    kld: float  # nats
    base_p: float  # the token's probability
    variant_p: float
    base: tuple[Choice, ...]  # the five likeliest, the best first
    variant: tuple[Choice, ...]


@dataclass(frozen=True)
class Row:
    """One row of a comparison: log-probabilities of the token, and of both models' likeliest tokens."""

    kld: float
    base_logp: Tensor  # ()
    variant_logp: Tensor  # ()
    base: tuple[Tensor, Tensor]  # (5,) log-probabilities, (5,) tokens
    variant: tuple[Tensor, Tensor]


class Worst:
    """Keeps the places with the highest KLD in one text; a few kilobytes, whatever the text's length."""

    def __init__(self, before: list[int], place: int) -> None:
        """Begin after the tokens `before`; the next token stands at `place`."""
        self._before: deque[int] = deque(before, maxlen=CONTEXT)
        self._place = place
        self._heap: list[tuple[float, int, Spot]] = []  # the least of those kept first; places tell ties apart

    def note(self, token: int, row: Row) -> None:
        """Take in the next place."""
        if len(self._heap) < KEPT:
            heapq.heappush(self._heap, (row.kld, -self._place, self._spot(token, row)))
        elif row.kld > self._heap[0][0]:
            heapq.heapreplace(self._heap, (row.kld, -self._place, self._spot(token, row)))
        self._before.append(token)
        self._place += 1

    def _spot(self, token: int, row: Row) -> Spot:
        shares = (row.base_logp.exp().item(), row.variant_logp.exp().item())
        choices = (_choices(*row.base), _choices(*row.variant))
        return Spot(self._place, tuple(self._before), token, row.kld, *shares, *choices)

    @property
    def spots(self) -> list[Spot]:
        """The kept places, the worst first."""
        return [spot for _, _, spot in sorted(self._heap, reverse=True)]


def told(subject: Subject, spot: Spot) -> dict[str, Any]:
    """A place as plain data, with texts beside the tokens."""
    before = list(spot.before)

    def text(token: int) -> str:
        pieces = Pieces(subject, before)
        return pieces.add(token) + pieces.flush()

    def named(choices: tuple[Choice, ...]) -> list[dict[str, Any]]:
        return [{"token": token, "text": text(token), "p": p} for token, p in choices]

    data = asdict(spot) | {"before": decode(subject, before), "text": text(spot.token)}
    return data | {"base": named(spot.base), "variant": named(spot.variant)}


def _choices(logps: Tensor, tokens: Tensor) -> tuple[Choice, ...]:
    return tuple(zip(tokens.tolist(), logps.exp().tolist(), strict=True))
