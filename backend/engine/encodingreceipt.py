"""The receipt of an encoder's lane: what is true of the live model and of a batch that was watched."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import torch

from backend.engine.busythreads import busy_threads
from backend.engine.encode import Batch, embed
from backend.engine.headcount import head_counts
from backend.engine.receipt import alike, weight_facts
from backend.recipe.recipe import Recipe
from backend.techniques.anatomy import encoder_layers
from backend.techniques.base import Effect, Run, Subject
from backend.techniques.kernels import Heard, listen
from backend.techniques.registry import read_back


def watch(subject: Subject, batch: Batch) -> Run:
    """Watch one batch being encoded; off every clock."""
    heard: list[Heard] = []
    busy = busy_threads(lambda: heard.append(listen(lambda: embed(subject, batch))))
    return Run(
        cache="none",
        cache_layers=(),
        slots=(),
        tokens=batch.tokens,
        prefill_kernels=heard[0].kernels,
        busy_threads=busy,
    )


def encoder_receipt(subject: Subject, recipe: Recipe) -> dict[str, Any]:
    """Plain data, with the keys of a decoder's receipt where they have a meaning for an encoder.

    `run` holds `encode_kernels` (attention kernels by name) and `busy_threads`; None where nothing was watched.
    """
    model, run = subject.model, subject.run
    layers = encoder_layers(model)
    head_dim = [subject.facts.head_dim] * (subject.facts.layers if layers is None else len(layers))
    effects: list[Effect] = [read_back(subject, switch) for switch in recipe.pipeline]
    return {
        **weight_facts(model),
        "layers": len(head_dim),
        "heads": alike(head_counts(model, [], head_dim)["heads"]),
        "head_dim": alike(head_dim),
        "pooling": subject.pooling,
        "device": str(subject.device),
        "places": dict(Counter(str(tensor.device) for tensor in chain(model.parameters(), model.buffers()))),
        "threads": torch.get_num_threads(),
        "attention": model.config._attn_implementation,
        "run": run and {"encode_kernels": run.prefill_kernels, "busy_threads": run.busy_threads},
        "effects": [effect.as_dict() for effect in effects],
    }
