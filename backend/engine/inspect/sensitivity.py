"""Sensitivity: what quantizing one layer alone does to the model's output. Simulated, so that nothing is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.engine.inspect.fakequant import dynamic_int8, int4_groups, int8_rows, split_rows
from backend.engine.quality import compare, prompt_rows
from backend.recipe.switches.mixed import HEAD, SPLIT, MixedPrecision
from backend.techniques.base import Subject
from backend.techniques.quantize.layers import linear_like
from backend.techniques.quantize.likely import likely_tokens
from backend.techniques.quantize.units import linear_units

TOKENS = 64
ROWS = 16  # scored at a time, so that a large vocabulary takes no second (T, V)
SCHEMES = ("int4", "int8", "int8_dynamic")
Forward = Callable[[Tensor], Tensor]
Change = Callable[[nn.Linear], Forward]  # how a layer computes instead
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {"int4": int4_groups, "int8": int8_rows}  # schemes of weights alone


class Sensitivity:
    """Scores a model against itself with one layer's matrices quantized at a time."""

    def __init__(self, subject: Subject, ids: list[int]) -> None:
        """Hold the output of the model as it is, on the first tokens of a text of its own kind."""
        self._subject = subject
        self._ids = ids[: prompt_rows(TOKENS, subject.facts.vocab) + 1]
        self._units = _units(subject)
        self._base = torch.log_softmax(self._logits().float(), dim=-1)  # (T, V)

    @property
    def units(self) -> list[str]:
        """What can be quantized alone: every decoder layer by its number, and the head."""
        return list(self._units)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What there is to measure: every scheme on every unit, and the split head where there is text to choose by."""
        pairs = [(scheme, unit) for scheme in SCHEMES for unit in self._units]
        text = self._subject.read_text or self._subject.sample_ids
        can = text and HEAD in self._units and self._subject.device.type == "cpu"
        return [*pairs, (SPLIT, HEAD)] if can else pairs

    @property
    def tokens(self) -> int:
        """On how many tokens."""
        return len(self._base)

    def measure(self, scheme: str, unit: str) -> dict[str, Any]:
        """KLD in nats and top-1 agreement with this unit alone quantized by this scheme."""
        with _standing_in(self._units[unit], self._changed(scheme)):
            logits = self._logits()
        kld: list[float] = []
        same: list[float] = []
        for start in range(0, self.tokens, ROWS):
            rows = slice(start, start + ROWS)
            scores = compare(self._base[rows], logits[rows], self._ids[1:][rows])
            kld += scores["kld"]
            same += scores["top1"]
        ranked = sorted(kld)
        p95 = ranked[min(len(ranked) - 1, round(0.95 * (len(ranked) - 1)))]
        return {"kld": sum(kld) / len(kld), "kld_p95": p95, "top1": sum(same) / len(same)}

    def _changed(self, scheme: str) -> Change:
        if scheme == SPLIT:
            mixed = MixedPrecision()
            likely = likely_tokens(self._subject, mixed.likely)
            return lambda layer: _by_weight(layer, split_rows(layer.weight, mixed.split_group, likely))
        if scheme in WEIGHTS:
            return lambda layer: _by_weight(layer, WEIGHTS[scheme](layer.weight))
        return lambda layer: lambda x: F.linear(dynamic_int8(x), layer.weight, layer.bias)

    @torch.inference_mode()
    def _logits(self) -> Tensor:
        """Logits (T, V) of the text in one call, on the CPU."""
        inputs = torch.tensor([self._ids], device=self._subject.device)
        return self._subject.model(input_ids=inputs, use_cache=False).logits[0, :-1].cpu()


def why_not(subject: Subject) -> str:
    """Why layers cannot be quantized alone, or ''."""
    packed = [name for name, layer in linear_like(subject.model).items() if type(layer) is not nn.Linear]
    return f"its layers are packed already, for example {packed[0]}" if packed else ""


def _units(subject: Subject) -> dict[str, list[nn.Linear]]:
    """The linear layers of every unit, decoder layers in order and the head last."""
    names = linear_units(subject.model)
    units: dict[str, list[nn.Linear]] = {}
    for name, layer in subject.linears().items():
        units.setdefault(names[name], []).append(layer)
    return units


@contextmanager
def _standing_in(layers: list[nn.Linear], change: Change) -> Iterator[None]:
    """Let these layers compute as if they were quantized; gone with the block, no weight is touched."""
    for layer in layers:
        layer.forward = change(layer)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own again


def _by_weight(layer: nn.Linear, weight: Tensor) -> Forward:
    stored = weight.to(layer.weight.dtype)
    return lambda x: F.linear(x, stored, layer.bias)
