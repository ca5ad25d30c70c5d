"""GPTQ's rounding of one matrix: column by column, each error made good by the columns that come after it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.techniques.hessian import inverse_factor
from backend.techniques.quantize.groups import MIDDLE, Grid, Groups, as_groups, blocks_of, ranges, searched_ranges

BLOCK = 128  # columns whose errors are spread at once to all columns behind them


def gptq_rounding(
    weight: Tensor, hessian: Tensor, group_size: int, grid: Grid, *, damping: float, act_order: bool, search: bool
) -> Groups | None:
    """Codes for W (N, K) that keep W x, where `hessian` (K, K) is 2 / T times the sum of x x^T; None if it is singular.

    With U the upper Cholesky factor of the inverse of the damped Hessian, column i is rounded and its error
    e = (w_i - q_i) / U_ii is subtracted as e U_ij from every column j > i. Scales and zeros are those of the weights
    before any error was spread, so that columns may come in any order while groups stay contiguous.

    Source: Frantar et al. 2022, algorithm 1; act_order and static groups as in the authors' code.
    """
    blocks = blocks_of(weight, group_size)  # (N, G, g)
    rows, groups, _ = blocks.shape
    width = groups * group_size
    hessian = F.pad(hessian, (0, width - hessian.shape[0]) * 2)
    scale, zero = (
        searched_ranges(blocks, grid, diagonal_blocks(hessian, group_size)) if search else ranges(blocks, grid)
    )
    order = hessian.diagonal().argsort(descending=True) if act_order else torch.arange(width)
    factor = inverse_factor(hessian[order][:, order], damping)
    if factor is None:
        return None
    columns = blocks.view(rows, width).T[order].contiguous()  # (K, N): a column of W lies contiguous
    scales, zeros = (part[..., 0].T for part in (scale, zero))  # (G, N)
    codes = torch.empty(width, rows)
    for start in range(0, width, BLOCK):
        end = min(start + BLOCK, width)
        errors = torch.empty(end - start, rows)
        for i in range(start, end):
            group = int(order[i]) // group_size
            s, z = scales[group], zeros[group]
            codes[i] = grid.codes(columns[i], s, z)
            errors[i - start] = (columns[i] - ((codes[i] - MIDDLE) * s + z)) / factor[i, i]
            columns[i + 1 : end].addr_(factor[i, i + 1 : end], errors[i - start], alpha=-1)
        columns[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    return as_groups(codes[order.argsort()].T, scale, zero)


def diagonal_blocks(hessian: Tensor, group_size: int) -> Tensor:
    """(K, K) -> (G, g, g): each group's own block on the diagonal."""
    groups = hessian.shape[0] // group_size
    parts = hessian.view(groups, group_size, groups, group_size)
    return parts.diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
