"""The receipt: what is true of a live model and its run, read back from them and never echoed from the request."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedModel

from backend.engine.headcount import head_counts
from backend.engine.held import families
from backend.engine.kvgrowth import kv_growth
from backend.recipe.recipe import Recipe
from backend.techniques.base import Effect, Run, Subject
from backend.techniques.registry import read_back


def receipt(subject: Subject, recipe: Recipe) -> dict[str, Any]:
    """Plain data. Costs a few short calls of the model, so it is read off every clock.

    Keys:
        `families` [class, format, count, weights, bytes, sparsity], `weights_bytes`, `bits_per_weight`, `sparsity`
        with `sparsity_of` (weights whose zeros could be counted); `layers`, `heads`, `kv_heads` and `head_dim`, one
        number or a list by layer; `kv_bytes_per_token` and `kv_layers` (see kvgrowth.py); `device`, `places`,
        `threads`; `attention`, the configured one, and `run`, what was seen to run (see `Run`), None where nothing
        was run; `compiled` with its mode, graphs and breaks; `effects`, one a switch.
    """
    model = subject.model
    growth = kv_growth(subject)
    heads = head_counts(model, growth.pop("kv_heads_cached"), growth["head_dim"])
    effects: list[Effect] = [read_back(subject, switch) for switch in recipe.pipeline]
    return {
        **weight_facts(model),
        **growth,
        "layers": len(growth["head_dim"]) or None,
        "heads": alike(heads["heads"]),
        "kv_heads": alike(heads["kv_heads"]),
        "head_dim": alike(growth["head_dim"]),
        "device": str(subject.device),
        "places": dict(Counter(str(tensor.device) for tensor in chain(model.parameters(), model.buffers()))),
        "threads": torch.get_num_threads(),
        "attention": model.config._attn_implementation,
        "run": _run(subject.run),
        "compiled": _compiled(effects),
        "effects": [effect.as_dict() for effect in effects],
    }


def alike(values: list[int] | None) -> int | list[int] | None:
    """One number where all layers agree, else the list by layer."""
    return values[0] if values and len(set(values)) == 1 else values or None


def weight_facts(model: PreTrainedModel) -> dict[str, Any]:
    """Families of layers, bytes held, bits a weight, and zeros."""
    found = families(model)
    held, weights = sum(family.bytes for family in found), sum(family.weights for family in found)
    looked_at = sum(family.looked_at for family in found)
    return {
        "families": [family.as_dict() for family in found],
        "weights": weights,
        "weights_bytes": held,
        "bits_per_weight": round(8 * held / weights, 3) if weights else None,
        "sparsity": sum(family.zeros for family in found) / looked_at if looked_at else None,
        "sparsity_of": looked_at,
    }


def _run(run: Run | None) -> dict[str, Any] | None:
    """The run as plain data, its layers of one sort folded together."""
    if run is None:
        return None
    layers = Counter(run.cache_layers)
    return asdict(run) | {"cache_layers": dict(layers), "slots": alike(list(run.slots))}


def _compiled(effects: list[Effect]) -> dict[str, Any] | None:
    """What the compiler's counters say, None where nothing was compiled."""
    return next((effect.facts for effect in effects if effect.kind == "compile" and effect.took_effect), None)
