"""Codes and scales of this project's own layers and of torch.ao's: kept as they are, packed again for this CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear

from backend.recipe.base import RecipeError
from backend.saved import PackedLayer
from backend.techniques.quantize.int4_codes import pack_codes, unpack_codes
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.packed_embedding import PackedEmbedding
from backend.techniques.quantize.qengine import best_engine, deprecation_unsaid, packing_for
from backend.techniques.quantize.split_linear import SplitLinear
from backend.techniques.quantize.w8a8_kernels import KERNELS, any_runs, pick
from backend.techniques.quantize.w8a8_linear import StaticRange, W8A8Linear

Pieces = dict[str, Tensor]


def bias_piece(bias: Tensor | None) -> Pieces:
    """The bias under its name, where there is one."""
    return {} if bias is None else {"bias": bias.detach()}


def keep_int8(layer: Any) -> tuple[PackedLayer, Pieces]:
    """Codes (N, K) int8 and scales (N,) float32."""
    pieces = {"codes": layer.codes.contiguous(), "scale": layer.scale, **bias_piece(layer.bias)}
    return PackedLayer(format="int8", **shape_of(layer)), pieces


def make_int8(packed: PackedLayer, pieces: Pieces) -> nn.Module:
    """The inverse of `keep_int8`."""
    return Int8Linear.from_codes(pieces["codes"], pieces["scale"], pieces.get("bias"))


def keep_int4(layer: Any) -> tuple[PackedLayer, Pieces]:
    """Codes (N, K / 2) uint8, two a byte, and scales with zeros (K / group, N, 2) bfloat16.

    Raises:
        RuntimeError: when the codes, packed again, are not what the layer holds: such a file would be wrong.
    """
    codes = unpack_codes(layer.packed, layer.group_size)
    if not torch.equal(pack_codes(codes), layer.packed):
        raise RuntimeError("the int4 kernel of this CPU does not give back the codes that it was given")
    packed = PackedLayer(format="int4", group_size=layer.group_size, **shape_of(layer))
    return packed, {"codes": codes, "scales_and_zeros": layer.scales_and_zeros, **bias_piece(layer.bias)}


def make_int4(packed: PackedLayer, pieces: Pieces) -> nn.Module:
    """The inverse of `keep_int4`."""
    return Int4Linear.from_packed(
        (packed.rows, packed.columns),
        packed.group_size,
        pack_codes(pieces["codes"]),
        pieces["scales_and_zeros"],
        pieces.get("bias"),
    )


def keep_split(layer: Any) -> tuple[PackedLayer, Pieces]:
    """All rows as int4 ones are kept; ids (R,) of the likely rows, their codes (R, K) int8 and scales (R,)."""
    packed, pieces = keep_int4(layer)
    likely = {"likely": layer.likely, "likely_codes": layer.codes.contiguous(), "likely_scale": layer.likely_scale}
    return packed.model_copy(update={"format": "split", "likely": len(layer.likely)}), pieces | likely


def make_split(packed: PackedLayer, pieces: Pieces) -> nn.Module:
    """The inverse of `keep_split`."""
    rest: Any = make_int4(packed, pieces)
    return SplitLinear.from_codes(rest, pieces["likely"], pieces["likely_codes"], pieces["likely_scale"])


def keep_qint8(layer: Any) -> tuple[PackedLayer, Pieces]:
    """Codes (N, K) int8, and a float64 scale with its zero point for each row or for all of them."""
    weight = layer.weight()
    per_channel = weight.qscheme() == torch.per_channel_affine
    if per_channel:
        scale, zero = weight.q_per_channel_scales().double(), weight.q_per_channel_zero_points().long()
    else:
        scale = torch.tensor([weight.q_scale()], dtype=torch.float64)
        zero = torch.tensor([weight.q_zero_point()])
    pieces = {"codes": weight.int_repr(), "scale": scale, "zero_point": zero, **bias_piece(layer.bias())}
    return PackedLayer(format="qint8", per_channel=per_channel, **shape_of(layer, layer.bias())), pieces


def make_qint8(packed: PackedLayer, pieces: Pieces) -> nn.Module:
    """The inverse of `keep_qint8`, packed for the best engine of this CPU.

    Raises:
        RecipeError: where torch has no such engine.
    """
    engine = best_engine()
    if engine is None:
        raise RecipeError("model", "dynamic int8", "a torch with kernels for it", "Load it on another machine.")
    codes, scale, zero = pieces["codes"], pieces["scale"], pieces["zero_point"]
    with packing_for(engine), deprecation_unsaid():
        if packed.per_channel:
            weight = torch._make_per_channel_quantized_tensor(codes, scale, zero, 0)
        else:
            weight = torch._make_per_tensor_quantized_tensor(codes, float(scale), int(zero))
        layer: Any = DynamicLinear(1, 1, bias_=packed.bias, dtype=torch.qint8)
        layer.set_weight_bias(weight, pieces.get("bias"))
    layer.out_features, layer.in_features = packed.rows, packed.columns
    layer.has_bias = packed.bias  # so that counting bytes need not unpack it
    return layer


def keep_w8a8(layer: Any) -> tuple[PackedLayer, Pieces]:
    """Codes (N, K) int8 and scales (N,) float32; the activations' range, where it is fixed, stands beside them."""
    codes, scale, bias = layer.unpacked()
    fixed = {"activation_scale": layer.static.scale, "activation_zero": layer.static.zero} if layer.static else {}
    shape = {"rows": codes.shape[0], "columns": codes.shape[1], "bias": bias is not None}
    packed = PackedLayer(format="w8a8", kernel=layer.kernel.name, **shape, **fixed)
    return packed, {"codes": codes.contiguous(), "scale": scale, **bias_piece(bias)}


def make_w8a8(packed: PackedLayer, pieces: Pieces) -> nn.Module:
    """The inverse of `keep_w8a8`.

    Raises:
        RecipeError: where torch has no kernel for it.
    """
    if not any_runs():
        raise RecipeError(
            "model", "int8 by int8", f"a torch with {' or '.join(KERNELS)}", "Load it on another machine."
        )
    fixed = StaticRange(packed.activation_scale, packed.activation_zero) if packed.activation_scale else None
    return W8A8Linear.from_codes(pieces["codes"], pieces["scale"], pieces.get("bias"), fixed, pick(packed.kernel))


def keep_table(layer: Any) -> tuple[PackedLayer, Pieces]:
    """Codes and scales of an embedding, and its multiplier in the type that its rows have."""
    multiplier = {"multiplier": torch.tensor([layer.multiplier], dtype=layer.dtype)}
    shape = {"rows": layer.num_embeddings, "columns": layer.embedding_dim}
    if layer.bits == 4:
        return PackedLayer(format="table4", **shape), {"codes": layer.codes, "scale": layer.scale, **multiplier}
    codes = layer.codes[:, : layer.embedding_dim].contiguous()
    return PackedLayer(format="table8", **shape), {"codes": codes, "scale": layer.scale, **multiplier}


def make_table(packed: PackedLayer, pieces: Pieces) -> nn.Module:
    """The inverse of `keep_table`; a table that is the head's stays empty until `share_table` fills it."""
    factor, empty = pieces["multiplier"], torch.empty(packed.rows, 0, dtype=torch.int8)
    codes, scale = pieces.get("codes", empty), pieces.get("scale", torch.empty(0))
    return PackedEmbedding(codes, scale, packed.columns, float(factor), factor.dtype)


def shape_of(layer: Any, bias: object | None = None) -> dict[str, Any]:
    """Rows, columns and whether there is a bias, as a packed layer's data has them."""
    bias = bias if bias is not None or callable(layer.bias) else layer.bias
    return {"rows": layer.out_features, "columns": layer.in_features, "bias": bias is not None}
