"""The sliding window: a cache that keeps the last tokens only, or the first few beside them."""

from __future__ import annotations

from typing import Any

from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from backend.recipe.base import RecipeError
from backend.recipe.switches.cache import WindowCache
from backend.techniques.anatomy import pass_one_token
from backend.techniques.base import Effect, Subject
from backend.techniques.cache.attend import attention_layers
from backend.techniques.cache.turning import turning_of
from backend.techniques.cache.windows import SinkLayer, WindowLayer
from backend.techniques.registry import technique


@technique(WindowCache)
class WindowCaching:
    """Every layer keeps `window` tokens, or fewer where its own window is smaller.

    Sinks stay in layers that do not slide by themselves: the others have learned to do without the first tokens.
    """

    def apply(self, subject: Subject, switch: WindowCache) -> None:
        """Make the engine build window caches from the live config.

        Raises:
            RecipeError: for a model that caches something else than keys and values, or sinks in one whose keys cannot
                be turned to another position.
        """
        model = subject.model
        attention_layers(model, switch.kind)
        sliding = [isinstance(layer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=model.config).layers]
        full = [number for number, slides in enumerate(sliding) if not slides]
        field = f"switches.{switch.kind}.sinks"
        if switch.sinks and not full:
            raise RecipeError(field, switch.sinks, "0 where every layer slides by itself", "Set sinks to 0.")
        turning = turning_of(model, full, field) if switch.sinks else None

        def narrow(layer: Any) -> WindowLayer:
            if isinstance(layer, DynamicSlidingWindowLayer):
                return WindowLayer(min(switch.window, layer.sliding_window), slides=True)
            return SinkLayer(switch.window, switch.sinks, turning) if turning else WindowLayer(switch.window, False)

        def make(total: int) -> Cache:
            cache = DynamicCache(config=model.config)
            cache.layers = [narrow(layer) for layer in cache.layers]
            return cache

        subject.plan.make_cache = make

    def read_back(self, subject: Subject, switch: WindowCache) -> Effect:
        """Build a cache as the engine would, fill it past its window, and measure which tokens it still holds."""
        make, total = subject.plan.make_cache, switch.window + switch.sinks + 2
        cache = make(total) if make else DynamicCache(config=subject.model.config)
        pass_one_token(subject.model, cache)
        first = switch.sinks + 1  # one more than should stay
        held = [_hold(layer, total, first) for layer in list[Any](cache.layers) if layer.is_initialized]
        full, sinks = max((kept for kept, _ in held), default=0), max((count for _, count in held), default=0)
        fits = (full, sinks) == (switch.window, switch.sinks)
        summary = (
            f"the first {sinks} and the last {full - sinks} tokens kept" if sinks else f"the last {full} tokens kept"
        )
        if (run := subject.run) and not set(run.cache_layers) <= {WindowLayer.__name__, SinkLayer.__name__}:
            fits, summary = False, f"the run kept its tokens in {run.cache}, not in a window"
        else:
            summary += f" of {total}"
        return Effect(
            kind=switch.kind,
            took_effect=fits,
            summary=summary,
            facts={
                "window": full,
                "sinks": sinks,
                "sink_layers": sum(count > 0 for _, count in held),
                "smallest_window": min((kept for kept, _ in held), default=0),
                "layers": len(held),
            },
        )


def _hold(layer: Any, total: int, first: int) -> tuple[int, int]:
    """Tokens that one layer holds after so many, and how many are of the `first`; its memory is freed afterwards.

    The first ones have values of 1, the others of 0.
    """
    shapes = [(*side.shape[:2], total, side.shape[3]) for side in (layer.keys, layer.values)]  # (B, H, T, D)
    keys, values = (layer.keys.new_zeros(shape) for shape in shapes)
    values[:, :, :first] = 1
    layer.reset()
    layer.update(keys, values)
    held = layer.values[0, 0, :, 0]
    found = int(held.shape[0]), int(held.count_nonzero())
    layer.reset()
    return found
