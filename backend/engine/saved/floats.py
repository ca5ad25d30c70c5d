"""A packed matrix as the floats that its codes stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from backend.engine.saved.codec import keep
from backend.saved import BLOCK, PackedLayer
from backend.techniques.quantize.census import FLOATS, layer_format
from backend.techniques.quantize.groups import MIDDLE
from backend.techniques.quantize.packed_embedding import rows_of_fours

Pieces = dict[str, Tensor]


def float_matrix(name: str, layer: Any) -> Tensor:
    """The matrix (N, K) of a linear layer, packed or not, as float32 on the CPU.

    Raises:
        RecipeError: for a layer that no codec knows.
    """
    if layer_format(layer) in FLOATS:
        return layer.weight.detach().float().cpu()
    packed, pieces = keep(name, layer)
    return _DECODE[packed.format](packed, pieces)


def float_bias(layer: Any) -> Tensor | None:
    """The bias (N,) as float32, or None."""
    bias = getattr(layer, "bias", None)  # embeddings have none
    bias = bias() if callable(bias) else bias
    return None if bias is None else bias.detach().float().cpu()


def _int8(packed: PackedLayer, pieces: Pieces) -> Tensor:
    return pieces["codes"].float() * pieces["scale"][:, None]


def _int4(packed: PackedLayer, pieces: Pieces) -> Tensor:
    codes = pieces["codes"]
    wide = torch.stack((codes & 15, codes >> 4), dim=2).view(len(codes), -1, packed.group_size).float()  # (N, G, g)
    scale, zero = pieces["scales_and_zeros"].float().permute(2, 1, 0)[..., None]  # (N, G, 1) each
    return ((wide - MIDDLE) * scale + zero).view(len(codes), -1)[: packed.rows, : packed.columns]


def _qint8(packed: PackedLayer, pieces: Pieces) -> Tensor:
    return (pieces["codes"].float() - pieces["zero_point"][:, None]) * pieces["scale"][:, None].float()


def _codebook(packed: PackedLayer, pieces: Pieces) -> Tensor:
    codes = torch.stack((pieces["codes"] >> 4, pieces["codes"] & 15), dim=1).flatten().long()  # the high half is first
    numbers = pieces["codebook"][codes] * pieces["scale"].float().repeat_interleave(BLOCK)[: len(codes)]
    return numbers[: packed.rows * packed.columns].view(packed.rows, packed.columns)


def _llm_int8(packed: PackedLayer, pieces: Pieces) -> Tensor:
    return pieces["codes"].float() * pieces["scale"][:, None] / 127


def _table4(packed: PackedLayer, pieces: Pieces) -> Tensor:
    return rows_of_fours(pieces["codes"], pieces["scale"].float())


_DECODE: dict[str, Callable[[PackedLayer, Pieces], Tensor]] = {
    "int8": _int8,
    "int4": _int4,
    "qint8": _qint8,
    "nf4": _codebook,
    "fp4": _codebook,
    "llm_int8": _llm_int8,
    "w8a8": _int8,
    "table8": _int8,
    "table4": _table4,
}
