"""Attention heads and KV heads of every layer, read from the shapes of the live projections."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

QUERY, KEY = ("q_proj", "query", "wq", "q_lin"), ("k_proj", "key", "wk", "k_lin")
FUSED = ("qkv_proj", "c_attn", "query_key_value", "Wqkv")


def head_counts(model: nn.Module, cached: list[int], head_dim: list[int]) -> dict[str, list[int] | None]:
    """Heads by layer; None for a build whose projections are not known.

    Args:
        cached: KV heads that each layer left in a live cache; for builds without a key projection of their own.
        head_dim: numbers in one head, by layer, from the same cache.
    """
    queries, keys, fused = (_widths(model, names) for names in (QUERY, KEY, FUSED))
    layers = len(head_dim)
    if layers and len(queries) == layers:
        heads = [width // size for width, size in zip(queries, head_dim, strict=True)]
    elif layers and len(fused) == layers:
        heads = [width // size - 2 * kv for width, size, kv in zip(fused, head_dim, cached, strict=True)]
    else:
        return {"heads": None, "kv_heads": cached or None}
    if len(keys) == layers:
        return {"heads": heads, "kv_heads": [width // size for width, size in zip(keys, head_dim, strict=True)]}
    return {"heads": heads, "kv_heads": cached}


def _widths(model: nn.Module, names: tuple[str, ...]) -> list[int]:
    """Outputs of every projection of one of these names, in the model's order."""
    named = ((name.rpartition(".")[2], module) for name, module in model.named_modules())
    return [_outputs(module) for leaf, module in named if leaf in names]


def _outputs(module: Any) -> int:
    """Rows of a plain matrix; what the layer says of itself where the matrix is packed."""
    weight = getattr(module, "weight", None)
    if type(module) is nn.Linear and isinstance(weight, Tensor) and weight.ndim == 2:
        return int(weight.shape[0])
    return int(getattr(module, "out_features", 0) or getattr(module, "nf", 0))  # nf: GPT-2's Conv1D
