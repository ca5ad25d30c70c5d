"""Widths that differ by layer, which no config of transformers can say: read from a live model, set in an empty one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from backend.modelref import bad_model
from backend.techniques.anatomy import attentions, describe_heads, encoder_layers, mlps, pass_one_token
from backend.techniques.base import decoder_layers
from backend.widths import Widths

LOADING = "loading"


def uneven_widths(model: PreTrainedModel) -> Widths | None:
    """Heads, KV heads and neurons by layer where layers differ, or None; seen by one token that passes through."""
    if encoder_layers(model) is not None:
        return None
    passage = pass_one_token(model)
    if not passage.attention or not passage.ffn:
        return None
    layers = decoder_layers(model)
    sizes = [int(getattr(layer.self_attn, "head_dim", 0)) for layer in layers if hasattr(layer, "self_attn")]
    found = {
        "heads": [width // size for width, size in zip(passage.attention, sizes, strict=False) if size],
        "kv_heads": passage.kv_heads,
        "ffn": passage.ffn,
    }
    uneven = {name: own for name, own in found.items() if len(own) == len(layers) and len(set(own)) > 1}
    return Widths.read(uneven) if uneven else None


def set_widths(model: PreTrainedModel, widths: Widths, name: str) -> None:
    """Give the layers of a model that holds no numbers yet these widths.

    Args:
        name: of the model, for a mistake.
    Raises:
        RecipeError: for a build whose parts are not known, or lists of another length than the model.
    """
    layers = len(decoder_layers(model))
    for field, own in widths.by_name().items():
        if len(own) != layers:
            given = f"{name}: {len(own)} widths of {field}"
            raise bad_model(given, f"one for each of {layers} layers", "Save it again.")
    for layer, block in enumerate(attentions(model, LOADING) if widths.heads or widths.kv_heads else []):
        if widths.heads:
            _resize(block.q_proj, rows=widths.heads[layer] * block.head_dim)
            _resize(block.o_proj, columns=widths.heads[layer] * block.head_dim)
        if widths.kv_heads:
            for linear in (block.k_proj, block.v_proj):
                _resize(linear, rows=widths.kv_heads[layer] * block.head_dim)
        describe_heads(block)
    for layer, block in enumerate(mlps(model, LOADING) if widths.ffn else []):
        for linear in (block.gate_proj, block.up_proj):
            _resize(linear, rows=widths.ffn[layer])
        _resize(block.down_proj, columns=widths.ffn[layer])


def _resize(linear: Any, rows: int | None = None, columns: int | None = None) -> None:
    """Another shape, with no numbers."""
    rows, columns = rows or linear.out_features, columns or linear.in_features
    old = linear.weight
    linear.weight = nn.Parameter(torch.empty(rows, columns, dtype=old.dtype, device="meta"), requires_grad=False)
    if linear.bias is not None and rows != linear.out_features:
        linear.bias = nn.Parameter(torch.empty(rows, dtype=old.dtype, device="meta"), requires_grad=False)
    linear.out_features, linear.in_features = rows, columns
