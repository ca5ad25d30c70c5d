"""The static cache: all its memory taken at the start."""

from __future__ import annotations

from typing import Any

from transformers import Cache
from transformers import StaticCache as StaticKVCache

from backend.recipe.switches.cache import StaticCache
from backend.techniques.anatomy import pass_one_token
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique

PROBE_TOKENS = 8


@technique(StaticCache)
class StaticCaching:
    """Every request gets a cache of prompt plus new tokens; layers with a window of their own get that at most."""

    def apply(self, subject: Subject, switch: StaticCache) -> None:
        """Make the engine build static caches from the live config."""
        model = subject.model

        def make(total: int) -> Cache:
            return StaticKVCache(config=model.config, max_cache_len=total)

        subject.plan.make_cache = make

    def read_back(self, subject: Subject, switch: StaticCache) -> Effect:
        """Build a small cache as the engine would, send one token through, and measure what it takes."""
        make = subject.plan.make_cache
        cache = make(PROBE_TOKENS) if make else None
        passage = pass_one_token(subject.model, cache)
        layers: list[Any] = [layer for layer in (list[Any](cache.layers) if cache else []) if layer.is_initialized]
        slots = {layer.keys.shape[2] for layer in layers}
        taken = bool(slots) and isinstance(cache, StaticKVCache) and max(slots) == PROBE_TOKENS
        name = type(cache).__name__ if cache else "DynamicCache"
        if run := subject.run:  # the cache that really served a request: slots beyond the tokens it had seen
            taken = taken and run.cache == name and max(run.slots, default=0) > run.tokens
            name = run.cache
        return Effect(
            kind=switch.kind,
            took_effect=taken,
            summary=f"{name}, {passage.kv_bytes:,} bytes a token, {'all' if taken else 'not'} taken at the start",
            facts={"cache": name, "kv_bytes_per_token": passage.kv_bytes, "layers": len(layers)},
        )
