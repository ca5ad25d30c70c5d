"""Zeros among the weights of one module, whatever class holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

AT_A_TIME = 1 << 24  # weights compared at a time: comparing makes a byte a weight


def shown_weight(module: nn.Module) -> Tensor | None:
    """The matrix of a module as floats or as int8 codes (N, K); None where it is packed for a kernel's eyes only."""
    packed = getattr(module, "packed", None)
    if isinstance(packed, Tensor):  # this project's own layers, which pad rows with zeros
        return packed[:, : module.in_features] if packed.dtype == torch.int8 else None
    if callable(made := getattr(module, "dense_weight", None)):  # held without its zeros
        return made()
    weight: Any = getattr(module, "weight", None)
    for part in ("qdata", "int_data"):  # torchao keeps its codes inside a tensor subclass
        weight = getattr(weight, part, weight)
    state = getattr(module, "state", None)
    if isinstance(getattr(state, "CB", None), Tensor):  # bitsandbytes moves its int8 codes there
        weight = getattr(state, "CB", weight)
    if not isinstance(weight, Tensor) or hasattr(weight, "__tensor_flatten__"):
        return None
    return weight.detach() if weight.is_floating_point() or weight.dtype == torch.int8 else None


def count_zeros(weight: Tensor) -> int:
    """How many entries are exactly zero."""
    rows = max(1, AT_A_TIME // max(1, weight[0].numel())) if weight.ndim > 1 else AT_A_TIME
    return sum(part.numel() - int(torch.count_nonzero(part)) for part in weight.split(rows))
