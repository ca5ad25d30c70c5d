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
    keys: list[bytes] = field(default_factory=list)  # of its prompt's whole blocks, where prefixes are kept
    looked: bool = False  # whether its prompt has been counted among those that were looked up

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


@dataclass(frozen=True)
class Copy:
    """The first tokens of a request need not be read: their keys and values are copied from these places."""

    id: int
    slot: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class Keep:
    """Blocks of a prompt that this step reads to their ends: kept in these places once it has."""

    id: int
    slot: int
    blocks: tuple[int, ...]
    places: tuple[int, ...]


@dataclass
class Plan:
    """One step: all leave, then all enter, then beginnings are copied, everything is fed in one call, and kept."""

    leaves: list[Move] = field(default_factory=list)
    enters: list[Move] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)
    keeps: list[Keep] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens that are fed."""
        return sum(feed.count for feed in self.feeds)
