"""Layers of a cache that keep a window: the last tokens, and where asked for the first ones as attention sinks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from backend.techniques.cache.turning import Turning, half_turned


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
        keys, values = key_states, value_states
        if past := self._past():
            kept_keys, kept_values = self._kept(past)
            keys = torch.cat([*kept_keys, key_states], dim=-2)
            values = torch.cat([*kept_values, value_states], dim=-2)
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

    def _kept(self, past: int) -> tuple[list[Tensor], list[Tensor]]:
        """Parts of the keys and of the values that the next call attends to, `past` tokens in all."""
        start = self.keys.shape[-2] - past
        return [self.keys[..., start:, :]], [self.values[..., start:, :]]

    def _cut(self, states: Tensor) -> Tensor:
        """The last `window` of them, always laid out alike, so that compiled code fits every step."""
        if states.shape[-2] <= self.window:
            return states.contiguous()
        # A slice would keep all of a long prompt alive; with one head it even passes for contiguous.
        return states[..., -self.window :, :].clone(memory_format=torch.contiguous_format)

    def _past(self) -> int:
        """Kept tokens that the next one attends to besides itself."""
        return min(self.cumulative_length, self.window - 1)


class SinkLayer(WindowLayer):
    """The first `sinks` tokens and the last `window` - `sinks`, as if nothing had stood between (Xiao et al. 2024).

    Section 3.2 counts positions within the cache. With rotary embeddings scores hang on distances alone, so the same
    comes of leaving the last tokens at their places in the text and moving the sinks up to stand right before them:
    no token is ever further away than the window is long, however long the text. Keys are cached turned to their
    position; those of the sinks are turned on by as many positions as have left, each time from what was cached first.
    """

    def __init__(self, window: int, sinks: int, turning: Turning) -> None:
        super().__init__(window, slides=False)
        self.sinks, self.turning = sinks, turning
        self.first: Tensor | None = None  # (B, H, sinks, D): the sinks' keys at their places in the text
        self.first_half: Tensor | None = None  # the same a quarter turn on

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, H, T, D); returns what these T tokens attend to."""
        found = super().update(key_states, value_states, *args, **kwargs)
        if self.first is None and self.keys.shape[-2] >= self.sinks:
            self.first = self.keys[..., : self.sinks, :].clone(memory_format=torch.contiguous_format)
            self.first_half = half_turned(self.first)
        return found

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the last tokens, while nothing has left the window yet; sinks may be among them.

        Raises:
            RuntimeError: afterwards, since what left cannot come back.
        """
        super().crop(tokens_to_remove)
        if self.cumulative_length < self.sinks:
            self.first = self.first_half = None

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.first = self.first_half = None

    def reorder_cache(self, beam_idx: Any) -> None:
        """Take these rows of the batch."""
        super().reorder_cache(beam_idx)
        self._rows(beam_idx)

    def batch_select_indices(self, indices: Any) -> None:
        """The same under the name that other callers know."""
        super().batch_select_indices(indices)
        self._rows(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row of the batch `repeats` times."""
        super().batch_repeat_interleave(repeats)
        if self.first is not None:
            self._rows(torch.arange(len(self.first), device=self.first.device).repeat_interleave(repeats))

    def _rows(self, rows: Tensor) -> None:
        if self.first is not None:
            self.first = self.first[rows]
            self.first_half = half_turned(self.first)

    def _kept(self, past: int) -> tuple[list[Tensor], list[Tensor]]:
        """The sinks, moved up, and the last tokens."""
        left = self.cumulative_length - past
        if not left or self.first is None or self.first_half is None:
            return super()._kept(past)
        start = self.keys.shape[-2] - (past - self.sinks)
        turned = self.turning.by(left, self.first, self.first_half)
        return [turned, self.keys[..., start:, :]], [self.values[..., : self.sinks, :], self.values[..., start:, :]]

    def _cut(self, states: Tensor) -> Tensor:
        """The first and the last of them."""
        if states.shape[-2] <= self.window:
            return states.contiguous()
        start = states.shape[-2] - (self.window - self.sinks)
        return torch.cat([states[..., : self.sinks, :], states[..., start:, :]], dim=-2)
