"""The quantized cache: older tokens are packed block by block, each once, and unpacked for every call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from backend.recipe.base import RecipeError
from backend.recipe.switches.quantized_cache import QuantizedCache
from backend.techniques.anatomy import pass_one_token
from backend.techniques.base import Effect, Subject, tensor_bytes
from backend.techniques.cache.attend import attention_layers
from backend.techniques.cache.packing import Packed, pack_keys, pack_values, unpack_keys, unpack_values
from backend.techniques.registry import technique


class PackedLayer(DynamicLayer):
    """One layer's keys and values: blocks of packed tokens, then the newest in full (Liu et al. 2024, KIVI).

    A block is packed once, from the numbers that were computed, as soon as `recent` newer tokens stand behind it. A
    call attends to its own tokens in full and to the blocks as their codes tell. transformers' own quantized layer
    packs the whole past again each time, codes of codes, and both sides along the same axis.
    """

    is_croppable = False
    keys: Any  # Tensor (B, H, T, D) of the newest tokens once initialized
    values: Any

    def __init__(self, asked: QuantizedCache, window: int | None) -> None:
        super().__init__()
        self.asked, self.window = asked, window  # window: of a layer that slides by itself
        self.is_sliding = window is not None
        self.cumulative_length = 0
        self.block = asked.group_size  # tokens that are packed together
        self.packed: dict[str, Packed] = {}

    @property
    def states(self) -> list[Tensor]:
        """Every tensor that holds tokens, for who counts bytes."""
        full = [self.keys, self.values] if self.is_initialized else []
        return [*full, *(tensor for side in self.packed.values() for tensor in side)]

    @property
    def packs_after(self) -> int:
        """Tokens after which the first block is packed."""
        return self.asked.recent + self.block

    @property
    def at_once(self) -> int:
        """Tokens that one call may hold for each to see what it would see if they came one by one.

        Those up to the next packing: the last of them fills the block that is packed once its call has ended.
        """
        held = self.keys.shape[-2] if self.is_initialized else 0
        return max(1, self.packs_after - held)

    @property
    def bytes_per_token(self) -> float:
        """Bytes that a packed token really takes; of one in full where none is packed."""
        if not self.packed or not (tokens := self.packed["keys"].codes.shape[2]):
            return float(self.keys[:, :, :1].nbytes + self.values[:, :, :1].nbytes)
        return tensor_bytes(*(tensor for side in self.packed.values() for tensor in side)) / tokens

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, H, T, D); returns what these T tokens attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past = self._past()
        if self.cumulative_length:
            self.keys = torch.cat([self.keys, key_states], dim=-2)
            self.values = torch.cat([self.values, value_states], dim=-2)
        else:
            self.keys, self.values = key_states.contiguous(), value_states.contiguous()
        self.cumulative_length += key_states.shape[-2]
        seen = past + key_states.shape[-2]
        keys, values = (states[..., -seen:, :] for states in self._all())
        self._pack()
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length of what the next `query_length` tokens attend to, and the position of its first."""
        past = self._past()
        return past + query_length, self.cumulative_length - past

    def get_seq_length(self) -> int:
        """Tokens seen so far."""
        return self.cumulative_length

    def get_max_length(self) -> int:
        """The layer's own window, or -1."""
        return self.window or -1

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the last tokens while they are still in full.

        Raises:
            RuntimeError: when packed ones would have to be cut.
        """
        if tokens_to_remove and -tokens_to_remove > (self.keys.shape[-2] if self.is_initialized else 0):
            raise RuntimeError("packed tokens cannot be cropped one by one")
        super().crop(tokens_to_remove)
        self.cumulative_length += tokens_to_remove if self.is_initialized else 0

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.packed = {}

    def reorder_cache(self, beam_idx: Any) -> None:
        """Take these rows of the batch, packed ones too."""
        super().reorder_cache(beam_idx)
        self.packed = {side: Packed(*(t.index_select(0, beam_idx) for t in had)) for side, had in self.packed.items()}

    def batch_select_indices(self, indices: Any) -> None:
        """The same under the name that other callers know."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row of the batch `repeats` times."""
        super().batch_repeat_interleave(repeats)
        self.packed = {
            side: Packed(*(t.repeat_interleave(repeats, dim=0) for t in had)) for side, had in self.packed.items()
        }

    def _past(self) -> int:
        """Kept tokens that the next one attends to besides itself."""
        return min(self.cumulative_length, self.window - 1) if self.window else self.cumulative_length

    def _all(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, T, D) of all that is held."""
        if not self.packed:
            return self.keys, self.values
        asked, dtype = self.asked, self.keys.dtype
        keys = unpack_keys(self.packed["keys"], asked.key_bits, self.block, dtype)
        values = unpack_values(self.packed["values"], asked.value_bits, self._channels(), dtype)
        return torch.cat([keys, self.keys], dim=-2), torch.cat([values, self.values], dim=-2)

    def _pack(self) -> None:
        """Pack whole blocks of what has recent tokens behind it, and drop those that have left the window."""
        count = (self.keys.shape[-2] - self.asked.recent) // self.block * self.block
        if count <= 0:
            return
        keys, values = self.keys[..., :count, :], self.values[..., :count, :]
        self._append("keys", pack_keys(keys, self.asked.key_bits, self.block))
        self._append("values", pack_values(values, self.asked.value_bits, self._channels()))
        self.keys, self.values = self.keys[..., count:, :].clone(), self.values[..., count:, :].clone()
        if self.window:
            held = self.packed["keys"].codes.shape[-2] + self.keys.shape[-2]
            self._drop(max(0, held - self.window + 1) // self.block * self.block)

    def _append(self, side: str, new: Packed) -> None:
        had = self.packed.get(side)
        self.packed[side] = Packed(*(torch.cat(pair, dim=2) for pair in zip(had, new, strict=True))) if had else new

    def _drop(self, tokens: int) -> None:
        """Forget the oldest packed tokens, whole blocks of them."""
        if not tokens:
            return
        for side, had in self.packed.items():
            firsts = (t.shape[2] * tokens // had.codes.shape[2] for t in had)
            self.packed[side] = Packed(*(t[:, :, first:].clone() for t, first in zip(had, firsts, strict=True)))

    def _channels(self) -> int:
        """Channels of a value that share a scale."""
        return min(self.block, int(self.values.shape[-1]))


@technique(QuantizedCache)
class QuantizedCaching:
    """Every layer's older tokens are packed."""

    def apply(self, subject: Subject, switch: QuantizedCache) -> None:
        """Make the engine build packed caches from the live config.

        Raises:
            RecipeError: for a model that caches something else than keys and values, or a head size that bits or group
                do not fit.
        """
        model = subject.model
        attention_layers(model, switch.kind)
        if reason := switch.refuse(subject.facts):
            raise RecipeError(f"switches.{switch.kind}", switch.label, reason, "Change it or switch it off.")

        def make(total: int) -> Cache:
            cache = DynamicCache(config=model.config)
            cache.layers = [PackedLayer(switch, _window(layer)) for layer in cache.layers]
            return cache

        subject.plan.make_cache = make

    def read_back(self, subject: Subject, switch: QuantizedCache) -> Effect:
        """Build a cache as the engine would, fill it until tokens are packed, and measure the bytes of a token."""
        make, block = subject.plan.make_cache, switch.group_size
        cache = make(switch.recent + block + 1) if make else DynamicCache(config=subject.model.config)
        pass_one_token(subject.model, cache)
        layers = [layer for layer in list[Any](cache.layers) if isinstance(layer, PackedLayer)]
        if not layers or len(layers) != len(cache.layers):
            return Effect(switch.kind, False, f"{type(cache).__name__} keeps every token in full")
        plain = sum(layer.keys[:, :, :1].numel() + layer.values[:, :, :1].numel() for layer in layers)
        _fill(layers, switch.recent + block)
        held = sum(layer.bytes_per_token for layer in layers)
        codes = sum(
            tensor_bytes(side.codes) / side.codes.shape[2] for layer in layers for side in layer.packed.values()
        )
        fits = 0 < codes == plain * (switch.key_bits + switch.value_bits) / 16
        summary = (
            f"{held:,.0f} bytes a token packed, {held / (2 * plain):.1%} of fp16; the last {switch.recent} in full"
        )
        if (run := subject.run) and set(run.cache_layers) != {PackedLayer.__name__}:
            fits, summary = False, f"the run kept its tokens in {run.cache}, not packed"
        return Effect(
            kind=switch.kind,
            took_effect=fits,
            summary=summary,
            facts={
                "kv_bytes_per_token": held,
                "codes_per_token": codes,
                "scales_per_token": held - codes,
                "of_fp16": held / (2 * plain),
                "layers": len(layers),
            },
        )


def _window(layer: Any) -> int | None:
    """The window of a layer that slides by itself."""
    return int(layer.sliding_window) if isinstance(layer, DynamicSlidingWindowLayer) else None


def _fill(layers: list[PackedLayer], tokens: int) -> None:
    """Add so many tokens of noise to every layer."""
    for layer in layers:
        layer.window = None  # a probe's window would drop what is to be measured
        shapes = [(*side.shape[:2], tokens, side.shape[3]) for side in (layer.keys, layer.values)]  # (B, H, T, D)
        layer.update(*(torch.randn(shape, device=layer.keys.device).to(layer.keys.dtype) for shape in shapes))
