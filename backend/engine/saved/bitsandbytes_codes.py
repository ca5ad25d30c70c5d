"""Codes and scales of bitsandbytes' layers.

Not by their own state dict: once the CPU kernel has packed a 4-bit layer, bitsandbytes 0.50 writes its scales
transposed and so does not read back what it wrote.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from backend.engine.saved.codes import bias_piece, shape_of
from backend.recipe.base import RecipeError
from backend.saved import BLOCK, PackedLayer
from backend.techniques.quantize.bitsandbytes_layers import bitsandbytes

Pieces = dict[str, Tensor]


def keep_codebook(layer: Any) -> tuple[PackedLayer, Pieces]:
    """Codes (N * K / 2,) uint8, a scale for every 64 weights, and the codebook (16,) float32.

    Raises:
        RecipeError: for scales that are quantized themselves.
    """
    data, state = layer.weight.data, layer.weight.quant_state
    if state.nested or getattr(state, "original_nested", False):
        allowed = "4 bits without double quantization: the CPU's kernel undoes it, and no exact way leads back"
        raise RecipeError("save", "double quantization", allowed, "Switch double quantization off, and save that.")
    scale = state.absmax
    if getattr(state, "packing_format_for_cpu", False):
        data, _ = bitsandbytes().functional._convert_weight_packed_for_cpu_inverse(data, copy(state))
        scale = scale.T  # the kernel holds it as (K / 64, N)
    pieces = {"codes": data.flatten(), "scale": scale.flatten(), "codebook": state.code, **bias_piece(layer.bias)}
    return PackedLayer(format=state.quant_type, **shape_of(layer)), pieces


def make_codebook(packed: PackedLayer, pieces: Pieces) -> nn.Module:
    """The inverse of `keep_codebook`; the first call packs it for this CPU's kernel, where there is one."""
    bnb = bitsandbytes()
    bias = pieces.get("bias")
    layer = bnb.nn.Linear4bit(
        packed.columns,
        packed.rows,
        bias=bias is not None,
        compute_dtype=torch.float32,
        quant_type=packed.format,
        device="meta",
    )
    stats = {
        "quant_type": packed.format,
        "absmax": pieces["scale"].float(),
        "quant_map": pieces["codebook"],
        "blocksize": BLOCK,
        "dtype": "float32",
        "shape": (packed.rows, packed.columns),
    }
    layer.weight = bnb.nn.Params4bit.from_prequantized(pieces["codes"].view(-1, 1), stats, device="cpu", module=layer)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer


def keep_llm_int8(layer: Any) -> tuple[PackedLayer, Pieces]:
    """Codes (N, K) int8 and the largest absolute value of each row (N,) float32."""
    holder = layer.state if layer.state.CB is not None else layer.weight
    pieces = {"codes": holder.CB, "scale": holder.SCB.float(), **bias_piece(layer.bias)}
    return PackedLayer(format="llm_int8", threshold=layer.state.threshold, **shape_of(layer)), pieces


def make_llm_int8(packed: PackedLayer, pieces: Pieces) -> nn.Module:
    """The inverse of `keep_llm_int8`."""
    bnb = bitsandbytes()
    bias = pieces.get("bias")
    layer = bnb.nn.Linear8bitLt(
        packed.columns,
        packed.rows,
        bias=bias is not None,
        has_fp16_weights=False,
        threshold=packed.threshold,
        device="meta",
    )
    codes = pieces["codes"]
    layer.weight = bnb.nn.Int8Params(codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=pieces["scale"])
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    layer.init_8bit_state()
    return layer
