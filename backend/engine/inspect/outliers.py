"""Outliers: how far the largest inputs of a linear layer stand out, and what that leaves of an int8 range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from backend.engine.inspect.fakequant import LEVELS
from backend.engine.inspect.partmap import layer_numbers
from backend.techniques.base import Subject
from backend.techniques.quantize.layers import linear_like

TOKENS = 256
FEW = 0.001  # the share of an input's numbers that are called its largest
LOWEST, HIGHEST, BINS = -4.0, 4.0, 40  # log10 of |x| / rms
SAMPLED = 1 << 20  # numbers of a weight that are counted


@torch.inference_mode()
def find_outliers(subject: Subject) -> dict[str, Any]:
    """Run the subject's text through the model in one call, and look at what enters every linear layer.

    Returns:
        `tokens`; `edges` (BINS + 1,) log10 of |x| / rms; and `layers`, the worst first, each with `name`, `layer`,
        `rows`, `max_abs`, `rms`, `ratio` max|x| / rms, `range_share` the share of max|x| that only the largest
        thousandth of the numbers uses, `zero_share` the share of them that rounds to 0 under one int8 scale for the
        call, `channel` and `token` of the largest, `histogram` (BINS,) counts, and the same of its `weight`
        (`ratio`, `histogram`) where that is a plain matrix.
    """
    ids = subject.sample_ids[:TOKENS]
    found: dict[str, dict[str, Any]] = {}
    with _listening(subject, found):
        subject.model(input_ids=torch.tensor([ids], device=subject.device), use_cache=False, logits_to_keep=1)
    numbers = layer_numbers(subject)
    for name, layer in linear_like(subject.model).items():
        if name in found:
            found[name] |= {"name": name, "layer": numbers.get(name), "weight": _weight(layer)}
    edges = torch.linspace(LOWEST, HIGHEST, BINS + 1).tolist()
    ranked = sorted(found.values(), key=lambda one: -one["ratio"])
    return {"tokens": len(ids), "edges": [round(edge, 3) for edge in edges], "layers": ranked}


@contextmanager
def _listening(subject: Subject, found: dict[str, dict[str, Any]]) -> Iterator[None]:
    def listen(name: str) -> Any:
        def hear(module: nn.Module, args: tuple[Any, ...]) -> None:
            rows = args[0].flatten(0, -2).float()  # (T, K)
            if rows.numel():
                found[name] = of_input(rows)

        return hear

    handles = [layer.register_forward_pre_hook(listen(name)) for name, layer in linear_like(subject.model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def of_input(rows: Tensor) -> dict[str, Any]:
    """The figures of one input (T, K) float32."""
    size = rows.abs()
    largest, rms = float(size.max()), float(rows.square().mean().sqrt())
    few = size.flatten().topk(max(1, int(FEW * size.numel()))).values
    step = (float(rows.max().clamp_min(0)) - float(rows.min().clamp_max(0))) / LEVELS
    place = int(size.argmax())
    return {
        "rows": rows.shape[0],
        "max_abs": largest,
        "rms": rms,
        "ratio": largest / rms if rms else 0.0,
        "range_share": 1 - float(few[-1]) / largest if largest else 0.0,
        "zero_share": float((size < step / 2).float().mean()),
        "channel": place % rows.shape[1],
        "token": place // rows.shape[1],
        "histogram": histogram(size, rms),
    }


def histogram(size: Tensor, rms: float) -> list[int]:
    """Counts of |x| / rms in bins of equal width on a log scale; what lies outside is in the first or last bin."""
    logs = (size.flatten() / (rms or 1.0)).clamp_min(10**LOWEST).log10()
    places = ((logs - LOWEST) / (HIGHEST - LOWEST) * BINS).long().clamp_(0, BINS - 1)
    counts: list[int] = torch.bincount(places, minlength=BINS).tolist()
    return counts


def _weight(layer: nn.Module) -> dict[str, Any] | None:
    """max|w| / rms and histogram of a plain matrix; a packed one shows no numbers."""
    weight = getattr(layer, "weight", None)
    if type(layer) is not nn.Linear or not isinstance(weight, Tensor):
        return None
    low, high = torch.aminmax(weight)
    rms = float(torch.linalg.vector_norm(weight, dtype=torch.float32)) / weight.numel() ** 0.5
    stride = max(1, weight.numel() // SAMPLED)
    largest = max(abs(float(low)), abs(float(high)))
    sample = weight.flatten()[::stride].float().abs()
    return {"ratio": largest / rms if rms else 0.0, "max_abs": largest, "histogram": histogram(sample, rms)}
