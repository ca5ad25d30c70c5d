"""What the routers of a live model chose in its last call, as plain data. Read off every clock."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from backend.techniques.expertlayers import expert_layers


class Routes:
    """Collects the choices of the tokens of a race.

    A step reads the token that the step before wrote, so the choices of a token come one step after it, and the last
    one has none.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = list(expert_layers(model).values())
        self._picks: list[list[list[int]]] = []
        self._prompt: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return bool(self._layers)

    def read_prompt(self) -> None:
        """Note the choices of the call that read the prompt: counts by layer and expert, and what was dropped."""
        if self._layers:
            self._prompt = {"counts": [], "pairs": 0, "dropped": 0}
        for layer in self._layers:
            picked = layer.picked
            if picked is None or self._prompt is None:
                continue
            counts = torch.bincount(picked.flatten(), minlength=len(layer)).tolist()
            self._prompt["counts"].append(counts + [0] * (self._most - len(layer)))
            self._prompt["pairs"] += picked.numel()
            self._prompt["dropped"] += layer.dropped

    def read_step(self, tokens: int) -> None:
        """Note the choices of the first `tokens` tokens of the last call: those after them were guessed wrongly."""
        by_layer = [layer.picked[:tokens].tolist() for layer in self._layers if layer.picked is not None]
        self._picks += [list(token) for token in zip(*by_layer, strict=True)]

    def told(self) -> dict[str, Any]:
        """What was noted since the last call: an event's data, see backend/routing.py."""
        data: dict[str, Any] = {"experts": self._most, "picks": self._picks}
        if self._prompt is not None:
            data["prompt"] = self._prompt
        self._picks, self._prompt = [], None
        return data

    @property
    def _most(self) -> int:
        return max(map(len, self._layers), default=0)
