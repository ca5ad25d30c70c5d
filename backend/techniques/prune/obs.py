"""SparseGPT's pruning of one matrix: column by column, each loss made good by the columns that come after it."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.recipe.switches.sparsity import WINDOWS, Pattern
from backend.techniques.prune.masks import least, least_blocks

BLOCK = 128  # columns for which weights are chosen at once, and whose losses are spread at once to all behind them
STRIP = 16  # columns whose losses are spread one by one: so few numbers that no threads must wait for each other


def obs_pruning(
    weight: Tensor, factor: Tensor, ratio: float, pattern: Pattern, *, unheard: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """W (N, K) with a share of zeros that keeps W x, and where they are.

    With U the upper Cholesky factor of the inverse Hessian, a weight that goes costs (w / U_ii)^2, and w / U_ii times
    U_ij is subtracted from every weight j > i of its row: the update of optimal brain surgeon among the columns that
    are still to come. Weights are chosen when their block is reached, after what earlier columns made of them.

    Args:
        factor: U (K, K).
        unheard: inputs (K,) that were always zero: their weights go first.
    Returns:
        The weights (N, K) float32, and a mask (N, K) that is true where they were set to zero.
    Source: Frantar and Alistarh 2023, algorithm 1, with 128 for both of its block sizes.
    """
    columns = weight.float().T.contiguous()  # (K, N): a column of W lies contiguous
    costs = factor.diagonal().reciprocal()  # of a weight of 1, before it is squared
    if unheard is not None:
        costs = costs.masked_fill(unheard, 0)
    gone = torch.zeros_like(columns, dtype=torch.bool)
    for start in range(0, len(columns), BLOCK):
        end = min(start + BLOCK, len(columns))
        if pattern not in WINDOWS:
            scores = (columns[start:end] * costs[start:end, None]).square()
            gone[start:end] = _block(scores.T, start, end, ratio, pattern).T
        _sweep(columns, gone, factor, (start, end), costs, WINDOWS.get(pattern))
    return columns.T.contiguous(), gone.T.contiguous()


def sweep(weight: Tensor, factor: Tensor, mask: Tensor) -> Tensor:
    """The same update with a mask (N, K) that is given."""
    columns, gone = weight.float().T.contiguous(), mask.T.contiguous()
    for start in range(0, len(columns), BLOCK):
        _sweep(columns, gone, factor, (start, min(start + BLOCK, len(columns))), factor.diagonal(), None)
    return columns.T.contiguous()


def _sweep(
    columns: Tensor,
    gone: Tensor,
    factor: Tensor,
    span: tuple[int, int],
    costs: Tensor,
    window: tuple[int, int] | None,
) -> None:
    """One block of columns (K, N), in place; with a window its mask is chosen on the way."""
    start, end = span
    losses = torch.empty_like(columns[start:end])
    for first in range(start, end, STRIP):
        last = min(first + STRIP, end)
        for i in range(first, last):
            if window and i % window[1] == 0:
                part = slice(i, i + window[1])
                gone[part] = least((columns[part] * costs[part, None]).square().T.contiguous(), window[0]).T
            losses[i - start] = columns[i].masked_fill(~gone[i], 0) / factor[i, i]
            columns[i + 1 : last].addr_(factor[i, i + 1 : last], losses[i - start], alpha=-1)
            columns[i].masked_fill_(gone[i], 0)
        strip = losses[first - start : last - start]
        columns[last:end].addmm_(factor[first:last, last:end].T, strip, alpha=-1)
    columns[end:].addmm_(factor[start:end, end:].T, losses, alpha=-1)


def _block(scores: Tensor, start: int, end: int, ratio: float, pattern: Pattern) -> Tensor:
    """The least of a block (N, B); roundings are such that the blocks of a matrix sum to its share."""
    rows, width = scores.shape
    if pattern == "64x1":
        return least_blocks(scores, round(ratio * end) - round(ratio * start))
    wanted = round(ratio * rows * end) - round(ratio * rows * start)
    return least(scores.reshape(1, -1), wanted).view(rows, width)
