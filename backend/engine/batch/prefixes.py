"""Keys and values of the beginnings of prompts, kept outside the slots for whoever begins alike."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.engine.batch.memory import Room
from backend.engine.batch.slots import SlotCache
from backend.serving.plan import Copy, Keep

Pair = tuple[Room, Room]  # keys and values (blocks, H, tokens, D) of one layer


class PrefixStore:
    """Blocks in numbered places, by layer. Which of them are still good, `backend/serving/prefixes.py` knows.

    Slots are rows of padded memory, so a block is copied and not shared: it costs its bytes once more in each slot, and
    one pass through memory instead of one through the model. Every slot holds all tokens, also of layers that read a
    window only, and positions are those of the text; so a copied block is what would have been computed.
    """

    def __init__(self, blocks: int, tokens: int) -> None:
        self._blocks, self._tokens = blocks, tokens
        self._layers: list[Pair] = []  # shaped by the first block that is kept

    def keep(self, cache: SlotCache, keep: Keep) -> None:
        """Copy blocks out of a slot."""
        layers = cache.layers
        if not self._layers:
            self._layers = [(self._room(keys), self._room(values)) for keys, values in layers]
        at, places = self._tokens_of(keep.blocks), torch.tensor(keep.places)
        for held, pair in zip(self._layers, layers, strict=True):
            for room, side in zip(held, pair, strict=True):
                found = side[keep.slot][:, at.to(side.device)]  # (H, n * tokens, D)
                blocks = found.unflatten(1, (len(places), self._tokens)).transpose(0, 1)
                room.tensor[places.to(side.device)] = blocks

    def copy(self, cache: SlotCache, copy: Copy) -> None:
        """Copy blocks into the beginning of a slot."""
        places, count = torch.tensor(copy.places), len(copy.places) * self._tokens
        for held, pair in zip(self._layers, cache.layers, strict=True):
            for room, side in zip(held, pair, strict=True):
                blocks = room.tensor[places.to(side.device)]  # (n, H, tokens, D)
                side[copy.slot, :, :count] = blocks.transpose(0, 1).flatten(1, 2)

    def _room(self, like: Tensor) -> Room:
        return Room((self._blocks, like.shape[1], self._tokens, like.shape[3]), like)

    def _tokens_of(self, blocks: tuple[int, ...]) -> Tensor:
        """Places in the text of all tokens of these blocks: (n * tokens,)."""
        return (torch.tensor(blocks)[:, None] * self._tokens + torch.arange(self._tokens)).flatten()
