"""The KV memory of a server, counted in blocks of equally many tokens."""

from __future__ import annotations


class Blocks:
    """How many blocks there are and how many are taken. Whose they are, their takers know."""

    def __init__(self, total: int, tokens: int) -> None:
        self.total, self.tokens = total, tokens
        self.used = 0

    @property
    def free(self) -> int:
        """Blocks that nobody has."""
        return self.total - self.used

    def needed(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.tokens)

    def take(self, count: int) -> bool:
        """Take so many, all or none; whether they were there."""
        if count > self.free:
            return False
        self.used += count
        return True

    def give(self, count: int) -> None:
        """Give back what was taken.

        Raises:
            ValueError: for more than is taken, which would let memory be given out twice.
        """
        if not 0 <= count <= self.used:
            raise ValueError(f"{count} blocks cannot be given back, {self.used} are taken")
        self.used -= count
