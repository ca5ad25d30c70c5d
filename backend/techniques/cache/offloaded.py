"""The offloaded cache: each layer's keys and values wait in the host's memory for their turn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from transformers import Cache, DynamicCache

from backend.recipe.base import RecipeError
from backend.recipe.switches.cache import OffloadedCache
from backend.techniques.base import Effect, Subject, layer_states, tensor_bytes
from backend.techniques.cache.attend import attention_layers
from backend.techniques.registry import technique

PROBE_TOKENS = 4
RESIDENT = 2  # layers that may lie beside the weights at a time: the one that computed last, and the next


@technique(OffloadedCache)
class OffloadedCaching:
    """The library's cache with its offloading on, layers with a window too."""

    def apply(self, subject: Subject, switch: OffloadedCache) -> None:
        """Make the engine build offloaded caches from the live config.

        Raises:
            RecipeError: for a model that does not lie on a CUDA device, or caches something else than keys and values.
        """
        model = subject.model
        if subject.device.type != "cuda":
            allowed = "a model on a CUDA GPU: on a CPU the cache lies in the host's memory already"
            raise RecipeError(f"switches.{switch.kind}", str(subject.device), allowed, "Switch it off.")
        attention_layers(model, switch.kind)

        def make(total: int) -> Cache:
            return DynamicCache(config=model.config, offloading=True)

        subject.plan.make_cache = make

    @torch.inference_mode()
    def read_back(self, subject: Subject, switch: OffloadedCache) -> Effect:
        """Build a cache as the engine would, send some tokens through, and look where each layer's tensors lie."""
        make = subject.plan.make_cache
        cache = make(PROBE_TOKENS) if make else DynamicCache(config=subject.model.config)
        ids = torch.zeros((1, PROBE_TOKENS), dtype=torch.long, device=subject.device)
        subject.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
        counts = places(cache)
        away, total = counts["cpu"], sum(counts.values())
        kept = total - away
        moved = subject.device.type != "cpu" and away >= 1 and kept <= RESIDENT
        name = type(cache).__name__
        if run := subject.run:
            moved = moved and run.cache == name
            name = run.cache
        held = sum(tensor_bytes(*layer_states(layer)) for layer in cache.layers)
        return Effect(
            kind=switch.kind,
            took_effect=moved,
            summary=f"{away} of {total} layers in the host's memory, {kept} beside the weights"
            if moved
            else f"{name} with its layers on {', '.join(sorted(counts)) or 'no device'}",
            facts={"layers": total, "layers_on_host": away, "kv_bytes_per_token": held // PROBE_TOKENS},
        )


def places(cache: Cache) -> Counter[str]:
    """How many layers of a cache lie on which kind of device."""
    layers: list[Any] = list(cache.layers)
    return Counter(str(layer.keys.device.type) for layer in layers if layer.is_initialized)
