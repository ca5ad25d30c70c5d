"""Beginnings of prompts whose keys and values are kept, block by block: which there are, and where."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b


def chain(ids: Sequence[int], tokens: int) -> list[bytes]:
    """A key for each whole block of `tokens` tokens, which stands for all that comes before it, too.

    So equal tokens after other beginnings have other keys: their keys and values differ. (Kwon et al. 2023, vLLM's
    automatic prefix caching.)
    """
    found, before = [], b""
    for start in range(0, len(ids) - tokens + 1, tokens):
        before = blake2b(before + array("q", ids[start : start + tokens]).tobytes(), digest_size=16).digest()
        found.append(before)
    return found


class Prefixes:
    """Places for blocks, numbered from 0; where none is free, the block that was least recently used goes.

    A block is used whenever one behind it is, and after it. So what goes has nothing kept behind it, as the leaves of
    SGLang's tree (Zheng et al. 2024).
    """

    def __init__(self, room: int, tokens: int) -> None:
        self.room, self.tokens = room, tokens
        self.asked_tokens = 0  # of prompts that were looked up
        self.reused_tokens = 0  # of these, that need not be computed
        self._places: OrderedDict[bytes, int] = OrderedDict()  # key of a block -> its place, the least recent first
        self._free = list(range(room - 1, -1, -1))

    @property
    def used(self) -> int:
        """Blocks that are kept."""
        return len(self._places)

    @property
    def hit_rate(self) -> float:
        """Prompt tokens that were not computed, of all prompt tokens; 0 before the first."""
        return self.reused_tokens / self.asked_tokens if self.asked_tokens else 0.0

    def find(self, keys: Sequence[bytes]) -> tuple[int, ...]:
        """Places of the first of these blocks, as many as are kept without a gap."""
        known = []
        for key in keys:
            if key not in self._places:
                break
            known.append(self._places[key])
        self._use(keys[: len(known)])
        return tuple(known)

    def add(self, keys: Sequence[bytes], first: int) -> list[tuple[int, int]]:
        """Keep the blocks from `first` on of a prompt; (block, place) of those that were not there before."""
        new: list[tuple[int, int]] = []
        own = set(keys)
        self._use(keys)  # so that the least recent block is none of them while there are others
        for block in range(first, len(keys)):
            if keys[block] in self._places:
                continue
            if block and keys[block - 1] not in self._places:
                break  # nobody would ever reach it
            if (place := self._place(own)) is None:
                break
            self._places[keys[block]] = place
            new.append((block, place))
        self._use(keys)
        return new

    def _use(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):
            if key in self._places:
                self._places.move_to_end(key)

    def _place(self, own: set[bytes]) -> int | None:
        """A free place, or that of the least recent block; None where only blocks of the same prompt are left."""
        if self._free:
            return self._free.pop()
        oldest = next(iter(self._places), None)
        if oldest is None or oldest in own:
            return None
        return self._places.pop(oldest)
