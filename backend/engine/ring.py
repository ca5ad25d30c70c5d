"""The ring: rows of log-probabilities in shared memory, from the baseline's lane to the others.

262,144 entries are one megabyte a token, so a slice's worth fits and no file of logits ever exists. The worker
passes the turn, so there is one writer, and readers come after it: no lock is needed.
"""

from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory

import torch
from torch import Tensor

from backend.ring_size import ring_rows


class Ring:
    """A (rows, V) float32 view on a shared memory block that the worker made."""

    def __init__(self, name: str, vocab: int) -> None:
        self._block = SharedMemory(name=name)
        self.rows = ring_rows(vocab)
        self.table = torch.frombuffer(self._block.buf, dtype=torch.float32, count=self.rows * vocab)
        self.table = self.table.view(self.rows, vocab)  # (R, V)

    def write(self, row: int, logits: Tensor) -> None:
        """Put the log-softmax of raw logits (V,) into a row."""
        torch.log_softmax(logits.float().cpu(), dim=-1, out=self.table[row])

    def read(self, start: int, count: int) -> Tensor:
        """Rows start to start + count as a (count, V) view: use it before the baseline's next turn."""
        return self.table[start : start + count]
