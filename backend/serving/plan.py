"""What one step is to do: who leaves, who enters, and which tokens are fed."""

from __future__ import annotations

from dataclasses import dataclass, field

from backend.serving.request import Request


@dataclass
class Sequence:
    """One request on its way. Tokens are known once they were given or written, cached once the model has read them."""

    request: Request
    order: int  # of submission: the smaller goes first, everywhere
    known: int
    cached: int = 0
    slot: int | None = None
    blocks: int = 0
    swapped: bool = False  # its keys and values lie outside the slots

    @property
    def written(self) -> int:
        """Tokens of the answer so far."""
        return self.known - len(self.request.prompt)

    @property
    def reading(self) -> bool:
        """Whether more than its newest token is still to be read: its prompt, or after preemption all of it again."""
        return self.known - self.cached > 1


@dataclass(frozen=True)
class Move:
    """A request enters or leaves a slot; `swap` where its `tokens` keys and values move with it."""

    id: int
    slot: int
    tokens: int
    swap: bool


@dataclass(frozen=True)
class Feed:
    """Tokens `start` to `start` + `count` of one request, read in this step; `emits` where the last has a successor."""

    id: int
    slot: int
    start: int
    count: int
    emits: bool
    ghost: bool = False  # of a request that has ended: computed, as a static batch does, and thrown away


@dataclass
class Plan:
    """One step: first all leave, then all enter, then everything is fed in one call."""

    leaves: list[Move] = field(default_factory=list)
    enters: list[Move] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens that are fed."""
        return sum(feed.count for feed in self.feeds)
