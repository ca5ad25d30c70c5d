"""The receipt: what is true of a live model, read back from it and never echoed from the request."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from backend.recipe.recipe import Recipe
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.quantize.layers import linear_like
from backend.techniques.registry import read_back


def receipt(subject: Subject, recipe: Recipe) -> dict[str, Any]:
    """Plain data: layers, bytes, heads, device, threads, and the effect of every switch of the recipe."""
    model, config = subject.model, subject.model.config
    effects: list[Effect] = [read_back(subject, switch) for switch in recipe.pipeline]
    classes = Counter(_class(m) for m in model.modules() if _computes(m))
    dtypes = Counter(str(p.dtype).removeprefix("torch.") for p in model.parameters())
    held, numbers = weight_bytes(model), held_weights(model)
    return {
        "device": str(subject.device),
        "threads": torch.get_num_threads(),
        "layers": getattr(config, "num_hidden_layers", None),
        "heads": getattr(config, "num_attention_heads", None),
        "kv_heads": getattr(config, "num_key_value_heads", None),
        "head_dim": getattr(config, "head_dim", None),
        "layer_classes": dict(classes),
        "parameter_dtypes": dict(dtypes),
        "weights_bytes": held,
        "bits_per_weight": round(8 * held / numbers, 3) if numbers else None,
        "attention": config._attn_implementation,
        "cache": "DynamicCache" if subject.plan.make_cache is None else type(subject.plan.make_cache(32)).__name__,
        "compiled": subject.plan.forward is not None,
        "effects": [effect.as_dict() for effect in effects],
    }


def _computes(module: nn.Module) -> bool:
    """Modules that hold weights of their own; packed layers of torch.ao show no tensor, only their widths."""
    if hasattr(module, "in_features"):
        return True
    return not list(module.children()) and bool(list(module.parameters()) or list(module.buffers()))


def _class(module: nn.Module) -> str:
    """The class's name as it calls itself: torch.ao's packed layers are classes called Linear, too."""
    return module._get_name()


def held_weights(model: nn.Module) -> int:
    """Number of weights: plain parameters, each storage once, and the matrices of packed layers."""
    plain = {p.untyped_storage().data_ptr(): p.numel() for p in model.parameters() if p.dtype.is_floating_point}
    packed = 0
    for layer in linear_like(model).values():
        weight = getattr(layer, "weight", None)
        shown = isinstance(weight, nn.Parameter) and weight.untyped_storage().data_ptr() in plain
        packed += 0 if shown else _size(layer)
    return sum(plain.values()) + packed


def _size(layer: nn.Module) -> int:
    return int(getattr(layer, "in_features", 0)) * int(getattr(layer, "out_features", 0))
