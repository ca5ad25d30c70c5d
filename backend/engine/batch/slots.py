"""The KV cache of a batch: a row of room for every slot, in every layer."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.engine.batch.memory import Room

Saved = list[tuple[Tensor, Tensor]]  # keys and values (H, T, D), by layer


class SlotCache:
    """Keys and values (slots, H, room, D) by layer, each as wide as its layer writes them.

    Layers with a window of their own keep all tokens, too, and read their window only: a slot is one row of memory.
    """

    def __init__(self, slots: int, room: int) -> None:
        self._slots, self.room = slots, room
        self._layers: dict[int, tuple[Room, Room]] = {}

    def layer(self, index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, which takes its shape from the first that are written (B, H, T, D)."""
        if index not in self._layers:
            self._layers[index] = (self._new(keys), self._new(values))
        held = self._layers[index]
        return held[0].tensor, held[1].tensor

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer that was written, in order."""
        return [(pair[0].tensor, pair[1].tensor) for _, pair in sorted(self._layers.items())]

    def _new(self, like: Tensor) -> Room:
        return Room((self._slots, like.shape[1], self.room, like.shape[3]), like)

    def widen(self, tokens: int) -> None:
        """Room for requests of so many tokens; what is held is kept."""
        if tokens <= self.room:
            return
        before, self.room = self.room, max(tokens, 2 * self.room)
        for index, pair in self._layers.items():
            wider = tuple(self._new(old.tensor) for old in pair)
            for old, new in zip(pair, wider, strict=True):
                new.tensor[:, :, :before] = old.tensor
            self._layers[index] = (wider[0], wider[1])

    def save(self, slot: int, tokens: int) -> Saved:
        """What a slot holds, copied out; on a GPU to the memory of the host."""
        pairs = [self._layers[index] for index in sorted(self._layers)]
        return [tuple(side.tensor[slot, :, :tokens].to("cpu", copy=True) for side in pair) for pair in pairs]  # type: ignore[misc]

    def load(self, slot: int, saved: Saved) -> None:
        """Copied back, into whatever slot."""
        for index, pair in zip(sorted(self._layers), saved, strict=True):
            for side, kept in zip(self._layers[index], pair, strict=True):
                side.tensor[slot, :, : kept.shape[1]] = kept.to(side.tensor.device)

    def forget(self, slot: int) -> None:
        """The slot's request has left: its memory goes back to the system where that is possible."""
        for pair in self._layers.values():
            for side in pair:
                side.forget(slot)

    @property
    def bytes_per_token(self) -> int:
        """Of keys and values in all layers; 0 before anything was written."""
        tensors = [side.tensor for pair in self._layers.values() for side in pair]
        return sum(one.shape[1] * one.shape[3] * one.element_size() for one in tensors)


def stack_positions(spans: list[tuple[int, int]], device: torch.device) -> Tensor:
    """Positions `start` to `start` + `count` of every span, in one row (N,)."""
    return torch.cat([torch.arange(start, start + count) for start, count in spans]).to(device)
