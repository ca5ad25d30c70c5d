"""Memory that takes no room until it is written to, and gives it back."""

from __future__ import annotations

import mmap
import sys
from math import prod

import torch
from torch import Tensor

PAGED = sys.platform.startswith("linux")


class Room:
    """A tensor of zeros. On a CPU under Linux the system maps its pages when they are first written to.

    So a slot costs what it holds and not what it could hold, and attention still reads plain rows: gathering blocks
    from a table took two to five times as long here. vAttention (Prabhu et al. 2024) does the same on a GPU.
    """

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self._map: mmap.mmap | None = None
        if like.device.type != "cpu" or not PAGED:
            self.tensor = torch.zeros(shape, dtype=like.dtype, device=like.device)
            return
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._map = mmap.mmap(-1, prod(shape) * like.element_size(), flags=flags)
        self._map.madvise(mmap.MADV_NOHUGEPAGE)  # or the first token of a slot would take two megabytes
        self.tensor = torch.frombuffer(self._map, dtype=like.dtype).view(shape)

    def forget(self, row: int) -> None:
        """Give back the pages of one row of the first dimension; it reads as zeros, or as it was, afterwards."""
        if self._map is None:
            return
        size = self.tensor.stride(0) * self.tensor.element_size()
        start = -(-row * size // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (row + 1) * size // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start:
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)
