"""The record of a text: keys and values of all its tokens in every layer, from which caches of any kind are filled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)


class RecordedLayer(DynamicLayer):
    """Keeps every token, and shows a layer that slides by itself its window only."""

    is_croppable = False
    keys: Any  # Tensor (B, H, T, D) once initialized
    values: Any

    def __init__(self, window: int | None) -> None:
        super().__init__()
        self.window = window
        self.is_sliding = window is not None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, H, T, D); returns what these T tokens attend to."""
        seen = self._past() + key_states.shape[-2]
        keys, values = super().update(key_states, value_states)
        return keys[..., -seen:, :], values[..., -seen:, :]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length of what the next `query_length` tokens attend to, and the position of its first."""
        past = self._past()
        return past + query_length, self.get_seq_length() - past

    def _past(self) -> int:
        """Kept tokens that the next one attends to besides itself."""
        held = self.get_seq_length()
        return min(held, self.window - 1) if self.window else held


ALIKE = (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer, RecordedLayer)


def record_of(model: PreTrainedModel) -> Cache:
    """An empty record. A model that reads a text into it in calls of any size computes what it would in one call."""
    cache = DynamicCache(config=model.config)
    cache.layers = [RecordedLayer(_window(layer)) for layer in cache.layers]
    return cache


@torch.inference_mode()
def fill(cache: Cache, record: Cache, tokens: int) -> Cache:
    """Leave in an empty cache what a prompt of the first `tokens` of the record leaves in it.

    A prompt is read in one call, in which every cache shows its tokens in full: what differs by cache is what is kept.
    """
    for number, layer in enumerate(list[Any](record.layers)):
        keys, values = (side[..., :tokens, :].clone() for side in (layer.keys, layer.values))
        cache.update(keys, values, number)
    return cache


def at_once(cache: Cache, most: int) -> int:
    """Tokens that one call may hold, up to `most`, for each to see what it would see if they came one by one."""
    return max(1, min(most if type(layer) in ALIKE else getattr(layer, "at_once", 1) for layer in cache.layers))


def _window(layer: Any) -> int | None:
    return int(layer.sliding_window) if isinstance(layer, DynamicSlidingWindowLayer) else None
