"""Which weights of a matrix become zero: the least of every group that a pattern makes of them, ties by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.recipe.switches.sparsity import BLOCK_ROWS, WINDOWS, Pattern

HALF = 1 << 16  # of the bits of a float32


def misfit(pattern: Pattern, columns: int) -> str | None:
    """The reason why a matrix with so many inputs cannot have the pattern, or None."""
    if pattern in WINDOWS and columns % WINDOWS[pattern][1]:
        return f"its {columns} inputs are no multiple of {WINDOWS[pattern][1]}, which {pattern} needs"
    return None


def in_blocks(matrix: Tensor, fill: float = 0) -> Tensor:
    """(N, K) -> (blocks, 64, K); the last block of a matrix whose rows do not divide is filled up."""
    rows, columns = matrix.shape
    return F.pad(matrix, (0, 0, 0, -rows % BLOCK_ROWS), value=fill).view(-1, BLOCK_ROWS, columns)


def least_blocks(scores: Tensor, wanted: int) -> Tensor:
    """(N, K) -> (N, K) bool: of every block of 64 rows the `wanted` columns whose scores sum to least."""
    chosen = least(in_blocks(scores).sum(dim=1), wanted)  # (blocks, K)
    return chosen.repeat_interleave(BLOCK_ROWS, dim=0)[: len(scores)]


def zeros_asked(pattern: Pattern, rows: int, columns: int, ratio: float, *, by_row: bool) -> int:
    """How many zeros a ratio makes in a matrix."""
    if pattern in WINDOWS:
        zeros, width = WINDOWS[pattern]
        return rows * columns // width * zeros
    if pattern == "64x1" or by_row:
        return rows * round(ratio * columns)
    return round(ratio * rows * columns)


def choose(scores: Tensor, ratio: float, pattern: Pattern, *, by_row: bool) -> Tensor:
    """The weights that go: the least of every window, of every block of rows, of every row, or of all.

    Args:
        scores: importance (N, K), at least 0; of a block its sum counts.
    Returns:
        (N, K) bool, true where a weight goes.
    """
    rows, columns = scores.shape
    if pattern in WINDOWS:
        zeros, width = WINDOWS[pattern]
        return least(scores.reshape(-1, width), zeros).view(rows, columns)
    if pattern == "64x1":
        return least_blocks(scores, round(ratio * columns))
    if by_row:
        return least(scores, round(ratio * columns))
    return least(scores.reshape(1, -1), round(ratio * rows * columns)).view(rows, columns)


def least(scores: Tensor, wanted: int) -> Tensor:
    """(G, M) -> (G, M) bool: the `wanted` least of every row; of equal ones those that come first."""
    if wanted == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(wanted, dim=1, keepdim=True).values
    below, tied = scores < threshold, scores == threshold
    missing = wanted - below.sum(dim=1, keepdim=True)
    if bool((tied.sum(dim=1, keepdim=True) > missing).any()):
        tied &= tied.cumsum(dim=1) <= missing
    return below | tied


def least_of_all(scores: Sequence[Callable[[], Tensor]], wanted: int) -> Iterator[Tensor]:
    """Masks of several matrices, one after the other, of which the `wanted` least of all together go.

    The threshold is exact and no list of all scores is made: the bits of floats that are at least 0 are in the order
    of their values, and are counted by their upper and then by their lower half.

    Args:
        scores: each gives the importance of one matrix, at least 0, as often as it is asked.
    """
    nothing = torch.zeros(HALF, dtype=torch.int64)
    high, left = _place(sum((_tally(_bits(score()) >> 16) for score in scores), nothing), wanted)
    low, left = _place(sum((_tally(_lower_half(score(), high)) for score in scores), nothing), left)
    threshold = high * HALF + low
    for score in scores:
        bits = _bits(score())
        below, tied = bits < threshold, bits == threshold
        tied &= (tied.flatten().cumsum(0) <= left).view_as(tied)
        left -= int(tied.sum())
        yield below | tied


def _bits(scores: Tensor) -> Tensor:
    return scores.float().contiguous().view(torch.int32)


def _lower_half(scores: Tensor, high: int) -> Tensor:
    bits = _bits(scores)
    return bits[bits >> 16 == high] % HALF


def _tally(numbers: Tensor) -> Tensor:
    return torch.bincount(numbers.flatten(), minlength=HALF).cpu()


def _place(tally: Tensor, wanted: int) -> tuple[int, int]:
    """The bin in which the wanted-th lies, and how many of that bin are wanted."""
    running = tally.cumsum(0)
    place = int(torch.searchsorted(running, max(1, wanted)))
    return place, wanted - (int(running[place - 1]) if place else 0)


def pack_mask(mask: Tensor) -> Tensor:
    """Eight weights a byte, for the shelf."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack_mask(bits: Tensor, like: Tensor) -> Tensor:
    """The inverse of `pack_mask` for a matrix `like` (N, K)."""
    flat = np.unpackbits(bits.numpy(), count=like.numel())
    return torch.from_numpy(flat).view(like.shape).bool().to(like.device)


def equal_everywhere(scores: Tensor) -> bool:
    """Whether no weight is more important than another, so that the index alone decides."""
    return bool(scores.min() == scores.max())


def holds(pattern: Pattern, weight: Tensor, ratio: float) -> bool:
    """Whether the zeros of a live matrix (N, K), floats or codes, lie as the pattern wants them."""
    zero = weight == 0
    if pattern in WINDOWS:
        zeros, width = WINDOWS[pattern]
        return bool((zero.reshape(-1, width).sum(dim=1) >= zeros).all())
    if pattern == "64x1":
        blocks = in_blocks(weight != 0).any(dim=1).logical_not()  # (blocks, K)
        return bool((blocks.sum(dim=1) >= round(ratio * weight.shape[1])).all())
    return True
