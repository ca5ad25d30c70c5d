"""Bytes that one more token really adds to a live cache, layer by layer."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from backend.techniques.base import Subject, layer_states, tensor_bytes

GROWN = 4  # tokens by which the cache is grown


@torch.inference_mode()
def kv_growth(subject: Subject) -> dict[str, Any]:
    """Grow a cache of the lane's own kind by some tokens and look.

    Returns:
        `kv_bytes_per_token` over all layers; `kv_layers`, one line for each sort of layer: how many, bytes a token,
        and how far it grows; `kv_heads_cached` and `head_dim`, by layer, as the cache's tensors are shaped.
    """
    make = subject.plan.make_cache
    cache = make(2 * GROWN) if make else DynamicCache(config=subject.model.config)
    packs = [int(layer.packs_after) for layer in cast(list[Any], cache.layers) if hasattr(layer, "packs_after")]
    grown = max([GROWN, *packs])  # where tokens are packed by the block, enough to see it
    ids = torch.zeros((1, grown), dtype=torch.long, device=subject.device)
    sizes: list[list[int]] = []
    for _ in range(2):
        subject.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
        sizes.append([_held(layer) for layer in cast(list[Any], cache.layers)])
    layers = [layer for layer in cast(list[Any], cache.layers) if _is_kept(layer)]
    held = zip(cast(list[Any], cache.layers), *sizes, strict=True)
    rates = [_rate(layer, before, after, grown) for layer, before, after in held if _is_kept(layer)]
    sorts = Counter((type(layer).__name__, rate, _reach(layer)) for layer, rate in zip(layers, rates, strict=True))
    return {
        "kv_bytes_per_token": sum(rates),
        "kv_layers": [
            {"class": name, "count": count, "bytes_per_token": rate, "grows": reach}
            for (name, rate, reach), count in sorts.items()
        ],
        "kv_heads_cached": [int(layer.keys.shape[1]) for layer in layers],
        "head_dim": [int(layer.keys.shape[-1]) for layer in layers],
    }


def _is_kept(layer: Any) -> bool:
    return bool(layer.is_initialized) and isinstance(getattr(layer, "keys", None), Tensor)


def _held(layer: Any) -> int:
    """Bytes behind a layer's tensors, counters left out."""
    return tensor_bytes(*layer_states(layer))


def _rate(layer: Any, before: int, after: int, grown: int) -> int:
    """Bytes a token: what was added, or the share of one slot where all memory was taken before."""
    if hasattr(layer, "packs_after"):
        return int(layer.bytes_per_token)
    return (after - before) // grown if after > before else after // int(layer.keys.shape[-2])


def _reach(layer: Any) -> str:
    """How far a layer's memory grows, in words."""
    if hasattr(layer, "max_cache_len"):
        return "not at all: every slot is taken at the start"
    longest = int(layer.get_max_length())
    return "with every token" if longest < 0 else f"up to a window of {longest} tokens"
