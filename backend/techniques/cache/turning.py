"""Keys that rotary embeddings have turned to one position, turned on to a later one (Su et al. 2021, RoFormer)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from backend.recipe.base import RecipeError
from backend.techniques.anatomy import text_config

MOVED = 9  # positions by which a trial turns
CLOSE = 0.05  # of the largest number: above what bfloat16 rounds, far below what a wrong turn does
UNEVEN = ("dynamic", "longrope")  # whose frequencies change with the length of the text
ALLOWED = "a model whose keys are turned by rotary embeddings of steady frequencies, each half against the other"


class Turning:
    """Turns keys by the model's own rotary embeddings; the layers of a cache share one, and with it a step's angles."""

    def __init__(self, rotary: Any, layer_type: str | None) -> None:
        self._rotary = rotary
        self._types = () if layer_type is None else (layer_type,)
        self._positions = -1
        self._cos: Tensor | None = None  # (1, 1, D)
        self._sin: Tensor | None = None

    def by(self, positions: int, keys: Tensor, half: Tensor) -> Tensor:
        """Keys (B, H, T, D), of which `half` is `half_turned`, so many positions on."""
        if positions != self._positions or self._cos is None or self._sin is None:
            self._cos, self._sin = self._angles(positions, keys.device)
            self._positions = positions
        return (keys * self._cos + half * self._sin).to(keys.dtype)

    def _angles(self, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines (1, 1, D); what a model scales its keys by besides is in them once already."""
        like = torch.zeros(1, device=device)
        places = torch.full((1, 1), positions, device=device)
        cos, sin = self._rotary(like, places, *self._types)
        whole, _ = self._rotary(like, torch.zeros_like(places), *self._types)
        return cos / whole, sin / whole


def half_turned(keys: Tensor) -> Tensor:
    """Keys a quarter turn on: the second half with its sign changed, then the first."""
    first, second = keys.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def turning_of(model: PreTrainedModel, layers: list[int], field: str) -> Turning:
    """What turns the keys of these layers, tried on the live model.

    Raises:
        RecipeError: naming `field`, for a model that tells positions in another way.
    """
    rotary = getattr(model.base_model, "rotary_emb", None)
    kinds = getattr(text_config(model), "layer_types", None)
    typed = rotary is not None and "layer_type" in inspect.signature(rotary.forward).parameters
    layer_type = str(kinds[layers[0]]) if typed and kinds else None
    if rotary is None or _uneven(rotary, layer_type):
        raise RecipeError(field, type(model).__name__, ALLOWED, "Set sinks to 0.")
    turning = Turning(rotary, layer_type)
    if not _turns(model, turning, layers):
        raise RecipeError(field, type(model).__name__, ALLOWED, "Set sinks to 0.")
    return turning


def _uneven(rotary: Any, layer_type: str | None) -> bool:
    kind = getattr(rotary, "rope_type", "")
    kind = kind.get(layer_type, "") if isinstance(kind, dict) else kind
    return any(name in str(kind) for name in UNEVEN)


@torch.inference_mode()
def _turns(model: PreTrainedModel, turning: Turning, layers: list[int]) -> bool:
    """Whether one token's keys at position 0, turned on, are those that the model computes further on.

    A token alone attends to itself whatever its position, so the keys of every layer may differ by the turn only.
    """
    token = torch.ones((1, 1), dtype=torch.long, device=model.device)
    found = []
    for place in (0, MOVED):
        cache = DynamicCache(config=model.config)
        model(input_ids=token, position_ids=torch.full_like(token, place), cache=cache, use_cache=True)
        found.append([list[Any](cache.layers)[layer].keys for layer in layers])
    for here, there in zip(*found, strict=True):
        if here is None or there is None or here.shape[-1] % 2:
            return False
        try:
            turned = turning.by(MOVED, here, half_turned(here))
        except RuntimeError:  # cosines of another width: only a part of each key is turned
            return False
        if (turned - there).abs().max() > CLOSE * there.abs().max():
            return False
    return True
