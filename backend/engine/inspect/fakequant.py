"""Quantization by arithmetic alone: what a kernel would have computed with, as float numbers. Always `simulated`."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.techniques.quantize.groups import FOUR_BITS
from backend.techniques.rounding import by_groups, by_rows

LEVELS = 127  # of torch's dynamic layers: 8 bits unsigned of which one is given up (`reduce_range`)
GROUP = 32


def dynamic_int8(x: Tensor) -> Tensor:
    """What `torch.ops.quantized.linear_dynamic` multiplies with instead of x: one scale and zero point a call.

    scale s = (max(x, 0) - min(x, 0)) / 127, zero point z = round(-min(x, 0) / s), codes clamp(round(x / s) + z, 0,
    127), and back s (code - z). The range always holds 0, so that 0 stays 0.
    """
    low, high = float(x.min().clamp_max(0)), float(x.max().clamp_min(0))
    scale = (high - low) / LEVELS
    if scale == 0:
        return x
    zero = min(LEVELS, max(0, round(-low / scale)))
    codes = torch.round(x / scale).add_(zero).clamp_(0, LEVELS)
    return codes.sub_(zero).mul_(scale)


def int4_groups(weight: Tensor, group: int = GROUP) -> Tensor:
    """A matrix (N, K) as int4 weight-only layers hold it, in float32: groups of a row, asymmetric, to nearest.

    scale s = (max - min) / 15, zero z = min + 8 s, both in bf16; code c = clamp(round((w - z) / s) + 8, 0, 15); and
    back s (c - 8) + z. See techniques/quantize/int4_linear.py.
    """
    return by_groups(group, FOUR_BITS)(weight)


def int8_rows(weight: Tensor) -> Tensor:
    """A matrix (N, K) as int8 weight-only layers hold it, in float32: one symmetric scale a row, to nearest.

    scale s = max|w| / 127, code q = round(w / s), and back s q. See techniques/quantize/int8_linear.py.
    """
    return by_rows(weight).to(weight.device)


def split_rows(weight: Tensor, group: int, likely: Tensor) -> Tensor:
    """A matrix (N, K) as a split head holds it, in float32: the likely rows int8, the others int4 in groups."""
    out = int4_groups(weight, group)
    out[likely] = int8_rows(weight[likely])
    return out
