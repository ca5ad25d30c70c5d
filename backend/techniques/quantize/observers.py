"""Observers: the range of what enters a layer, found on calibration text and fixed as a scale and a zero point."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.ao.quantization.observer import HistogramObserver

from backend.techniques.quantize.w8a8_linear import StaticRange, levels


class Observer:
    """Gathers a histogram of 2,048 bins; three rules make a range of it.

    torch's `HistogramObserver` does the gathering, and the search for the least squared error. It is deprecated with
    the rest of torch.ao.quantization, and has no successor that gathers over calls.
    """

    def __init__(self) -> None:
        self._histogram = HistogramObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
        self._low, self._high = float("inf"), float("-inf")

    def hear(self, rows: Tensor) -> None:
        """Count the numbers of one call (T, K)."""
        low, high = torch.aminmax(rows)
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
        self._histogram(rows)

    def range(self, rule: str, outside: float) -> tuple[float, float]:
        """The lowest and highest number that must fit.

        Args:
            rule: 'minmax' the extremes, 'percentile' what leaves `outside` percent out, half of it at either end,
                'mse' what rounds with the least squared error.
        """
        if rule == "mse" and self._low < self._high:
            low, high = self._histogram._non_linear_param_search()
            return float(low), float(high)
        if rule == "percentile" and self._low < self._high:
            return self._within(outside / 200)
        return self._low, self._high

    def _within(self, tail: float) -> tuple[float, float]:
        counts = self._histogram.histogram.double()
        below = counts.cumsum(0) / counts.sum()
        edges = torch.linspace(float(self._histogram.min_val), float(self._histogram.max_val), len(counts) + 1)
        first = int(torch.searchsorted(below, torch.tensor(tail, dtype=torch.float64)))
        last = int(torch.searchsorted(below, torch.tensor(1 - tail, dtype=torch.float64)))
        return float(edges[min(first, len(counts) - 1)]), float(edges[min(last, len(counts) - 1) + 1])


def fixed_range(low: float, high: float) -> StaticRange:
    """Scale and zero point over a range that always holds 0; a layer that only ever saw zeros gets the scale 1."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / levels()
    if not scale > 0:
        return StaticRange(1.0, 0)
    return StaticRange(scale, min(levels(), max(0, round(-low / scale))))
