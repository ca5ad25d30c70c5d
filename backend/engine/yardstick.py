"""Yardsticks: what this machine reaches when it does nothing but read, multiply, or call. Measured in the lane."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

MOST_BYTES = 256 * 2**20  # no last-level cache holds more: reading this much reads memory
REPEATS = 5
CALLS = 400


def _best(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Least seconds of several runs, the first of which warms up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times[1:])


@torch.inference_mode()
def read_bandwidth(size: int) -> float:
    """Bytes a second of a matrix-vector product over `size` bytes, at most 256 MB: a decode step and nothing else.

    A model that fits into the processor's caches is read faster than memory is, so the yardstick is as large as what
    the step reads.
    """
    columns = 2048
    rows = max(64, min(size, MOST_BYTES) // (4 * columns))
    matrix, vector = torch.ones(rows, columns), torch.ones(columns)
    return 4 * rows * columns / _best(lambda: torch.mv(matrix, vector))


@torch.inference_mode()
def peak_flops(dtype: torch.dtype, rows: int = 512) -> float:
    """Floating-point operations a second of a product (rows, 1024) x (1024, 2048)."""
    left, right = torch.ones(rows, 1024, dtype=dtype), torch.ones(1024, 2048, dtype=dtype)
    return 2 * rows * 1024 * 2048 / _best(lambda: torch.mm(left, right))


@torch.inference_mode()
def call_cost() -> float:
    """Seconds of one operator call that computes next to nothing: a linear layer of 8 by 8, module call included."""
    layer, token = nn.Linear(8, 8, bias=False), torch.ones(1, 1, 8)

    def calls() -> None:
        for _ in range(CALLS):
            layer(token)

    return _best(calls, 3) / CALLS
