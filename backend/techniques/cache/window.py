"""The sliding window: a cache that keeps the last tokens only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from backend.recipe.switches.cache import WindowCache
from backend.techniques.anatomy import pass_one_token
from backend.techniques.base import Effect, Subject
from backend.techniques.cache.attend import attention_layers
from backend.techniques.registry import technique


class WindowLayer(DynamicLayer):
    """One layer's last `window` keys and values; positions stay those of the whole text.

    A decoded token attends to itself and the `window` - 1 tokens before it. A call with several tokens (the prompt)
    attends causally to all of them, and to what was kept before it; only then is the cache cut to the window.
    So a prompt longer than the window is read in full, and forgotten from the next token on.

    The library's own sliding layer is not used: in a model without a window in its config the library sizes the
    masks of full-attention layers by the first layer that does not call itself sliding.
    """

    is_croppable = False
    keys: Any  # Tensor (B, H, T, D) once initialized
    values: Any

    def __init__(self, window: int, slides: bool) -> None:
        super().__init__()
        self.window = window
        self.is_sliding = slides  # whether the model itself gives this layer a sliding mask
        self.cumulative_length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, H, T, D); returns what these T tokens attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past = self._past()
        start = self.keys.shape[-2] - past if self.cumulative_length else 0
        keys = torch.cat([self.keys[..., start:, :], key_states], dim=-2) if past else key_states
        values = torch.cat([self.values[..., start:, :], value_states], dim=-2) if past else value_states
        self.cumulative_length += key_states.shape[-2]
        self.keys, self.values = self._cut(keys), self._cut(values)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length of what the next `query_length` tokens attend to, and the position of its first."""
        past = self._past()
        return past + query_length, self.cumulative_length - past

    def get_seq_length(self) -> int:
        """Tokens seen so far, forgotten ones included: the position of the next token."""
        return self.cumulative_length

    def get_max_length(self) -> int:
        """The window."""
        return self.window

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the last tokens, while nothing has left the window yet.

        Raises:
            RuntimeError: afterwards, since what left cannot come back.
        """
        if self.cumulative_length > self.window:
            raise RuntimeError("what left the window cannot come back, so this cache cannot be cropped")
        super().crop(tokens_to_remove)
        self.cumulative_length = self.keys.shape[-2] if self.is_initialized else 0

    def _cut(self, states: Tensor) -> Tensor:
        """The last `window` of them, always laid out alike, so that compiled code fits every step."""
        if states.shape[-2] <= self.window:
            return states.contiguous()
        # A slice would keep all of a long prompt alive; with one head it even passes for contiguous.
        return states[..., -self.window :, :].clone(memory_format=torch.contiguous_format)

    def _past(self) -> int:
        """Kept tokens that the next one attends to besides itself."""
        return min(self.cumulative_length, self.window - 1)


@technique(WindowCache)
class WindowCaching:
    """Every layer keeps the last `window` tokens, or fewer where its own window is smaller."""

    def apply(self, subject: Subject, switch: WindowCache) -> None:
        """Make the engine build window caches from the live config.

        Raises:
            RecipeError: for a model that caches something else than keys and values.
        """
        model = subject.model
        attention_layers(model, switch.kind)

        def make(total: int) -> Cache:
            cache = DynamicCache(config=model.config)
            cache.layers = [_narrow(layer, switch.window) for layer in cache.layers]
            return cache

        subject.plan.make_cache = make

    def read_back(self, subject: Subject, switch: WindowCache) -> Effect:
        """Build a cache as the engine would, fill it past its window, and measure how many tokens it still holds."""
        make, further = subject.plan.make_cache, switch.window + 1
        cache = make(further + 1) if make else DynamicCache(config=subject.model.config)
        pass_one_token(subject.model, cache)
        held = [_hold(layer, further) for layer in list[Any](cache.layers) if layer.is_initialized]
        full = max(held, default=0)
        fits = full == switch.window
        summary = f"the last {full} tokens kept of {further + 1}"
        if (run := subject.run) and set(run.cache_layers) != {WindowLayer.__name__}:
            fits, summary = False, f"the run kept its tokens in {run.cache}, not in a window"
        return Effect(
            kind=switch.kind,
            took_effect=fits,
            summary=summary,
            facts={"window": full, "smallest_window": min(held, default=0), "layers": len(held)},
        )


def _hold(layer: Any, further: int) -> int:
    """Tokens that one layer still holds after that many more, which are zeros; its memory is freed afterwards."""
    shapes = [(*side.shape[:2], further, side.shape[3]) for side in (layer.keys, layer.values)]  # (B, H, T, D)
    layer.update(*(layer.keys.new_zeros(shape) for shape in shapes))
    held = int(layer.keys.shape[-2])
    layer.reset()
    return held


def _narrow(layer: Any, window: int) -> WindowLayer:
    """A window layer in the place of the library's, never wider than the model's own window."""
    slides = isinstance(layer, DynamicSlidingWindowLayer)
    return WindowLayer(min(window, layer.sliding_window) if slides else window, slides)
