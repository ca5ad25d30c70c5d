"""The codecs: how each packed layer is kept in a file, and made again from it. One for each format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from backend.engine.saved.bitsandbytes_codes import keep_codebook, keep_llm_int8, make_codebook, make_llm_int8
from backend.engine.saved.codes import (
    keep_int4,
    keep_int8,
    keep_qint8,
    keep_split,
    keep_table,
    keep_w8a8,
    make_int4,
    make_int8,
    make_qint8,
    make_split,
    make_table,
    make_w8a8,
)
from backend.recipe.base import RecipeError
from backend.saved import ONE_TABLE, PackedLayer
from backend.techniques.quantize.census import FLOATS, layer_format
from backend.techniques.quantize.layers import linear_like
from backend.techniques.quantize.packed_embedding import PackedEmbedding

Pieces = dict[str, Tensor]


@dataclass(frozen=True)
class Codec:
    """Both directions of one format."""

    classes: tuple[str, ...]  # of the layers that it knows
    keep: Callable[[nn.Module], tuple[PackedLayer, Pieces]]
    make: Callable[[PackedLayer, Pieces], nn.Module]


_INT8 = Codec(("Int8Linear",), keep_int8, make_int8)
_INT4 = Codec(("Int4Linear",), keep_int4, make_int4)
_SPLIT = Codec(("SplitLinear",), keep_split, make_split)
_QINT8 = Codec(("DynamicQuantizedLinear",), keep_qint8, make_qint8)
_W8A8 = Codec(("W8A8Linear",), keep_w8a8, make_w8a8)
_TABLE = Codec(("PackedEmbedding",), keep_table, make_table)
_CODEBOOK = Codec(("Linear4bit",), keep_codebook, make_codebook)
_LLM_INT8 = Codec(("Linear8bitLt",), keep_llm_int8, make_llm_int8)
CODECS: dict[str, Codec] = {
    "int8": _INT8,
    "int4": _INT4,
    "split": _SPLIT,
    "qint8": _QINT8,
    "nf4": _CODEBOOK,
    "fp4": _CODEBOOK,
    "llm_int8": _LLM_INT8,
    "w8a8": _W8A8,
    "table8": _TABLE,
    "table4": _TABLE,
    ONE_TABLE: _TABLE,
}


def packed_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer whose matrix is not a plain float, by its dotted name, an embedding too."""
    tables = {name: module for name, module in model.named_modules() if isinstance(module, PackedEmbedding)}
    return tables | {name: layer for name, layer in linear_like(model).items() if layer_format(layer) not in FLOATS}


def keep(name: str, layer: nn.Module) -> tuple[PackedLayer, Pieces]:
    """What must be kept of a packed layer, on the CPU.

    Raises:
        RecipeError: for a layer that no codec knows, or whose library does not give it back.
    """
    kind = layer._get_name()
    codec = next((codec for codec in CODECS.values() if kind in codec.classes), None)
    if codec is None:
        known = ", ".join(name for codec in dict.fromkeys(CODECS.values()) for name in codec.classes)
        remedy = "Choose another precision for this lane, and save that."
        raise RecipeError("save", f"{name}: {kind}, {layer_format(layer)}", f"plain floats, {known}", remedy)
    return codec.keep(layer)


def make(packed: PackedLayer, pieces: Pieces) -> nn.Module:
    """The layer again, ready to run on this CPU; the pieces become its own."""
    return CODECS[packed.format].make(packed, pieces).eval()
