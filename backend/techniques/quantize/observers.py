"""Observers: the range of what enters a layer, found on calibration text and fixed as a scale and a zero point."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.ao.quantization.observer import HistogramObserver

from backend.techniques.quantize.w8a8_linear import StaticRange, levels

SHRUNK = 12.0  # powers of 2 by which a range may be less than its extremes
FINEST = 0.01  # of a power of 2
POINTS = 3  # of a bin: its middle alone may lie on a step by chance


class Observer:
    """Gathers a histogram of 2,048 bins; three rules make a range of it.

    torch's `HistogramObserver` does the gathering. It is deprecated with the rest of torch.ao.quantization, and has no
    successor that gathers over calls. Its own search for the least squared error steps through quantiles in hundred
    thousandths, fourteen minutes for Gemma's layers; here a grid of shrunken ranges, and a finer one around the best.
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
            return self._least_squared()
        if rule == "percentile" and self._low < self._high:
            return self._within(outside / 200)
        return self._low, self._high

    def _least_squared(self) -> tuple[float, float]:
        seen, extremes = self._seen(), (min(self._low, 0.0), max(self._high, 0.0))
        best, reach, step = (SHRUNK / 2, SHRUNK / 2), SHRUNK / 2, 0.5  # powers of 2 that either end is shrunk by
        while step > FINEST:
            shrunk = [torch.arange(max(0.0, at - reach), at + reach + step / 2, step) for at in best]
            ends = [extreme * 2.0**-powers for extreme, powers in zip(extremes, shrunk, strict=True)]
            errors = torch.stack([squared_error(*seen, low, ends[1]) for low in ends[0]])  # (lows, highs)
            row, column = divmod(int(errors.argmin()), errors.shape[1])
            best, reach, step = (float(shrunk[0][row]), float(shrunk[1][column])), step, step / 8
        return extremes[0] * 2.0 ** -best[0], extremes[1] * 2.0 ** -best[1]

    @property
    def _edges(self) -> Tensor:
        """Where the bins begin and end (bins + 1,)."""
        found = self._histogram
        return torch.linspace(float(found.min_val), float(found.max_val), len(found.histogram) + 1)

    def _seen(self) -> tuple[Tensor, Tensor]:
        """POINTS numbers in each bin in which anything fell, and how much each stands for (numbers,)."""
        counts, edges = self._histogram.histogram, self._edges
        filled = counts > 0
        places = (torch.arange(POINTS) + 0.5) / POINTS * (edges[1] - edges[0])
        numbers = edges[:-1][filled, None] + places  # (bins, POINTS)
        return numbers.flatten(), (counts[filled, None] / POINTS).expand_as(numbers).flatten()

    def _within(self, tail: float) -> tuple[float, float]:
        counts = self._histogram.histogram.double()
        below = counts.cumsum(0) / counts.sum()
        edges = self._edges
        first = int(torch.searchsorted(below, torch.tensor(tail, dtype=torch.float64)))
        last = int(torch.searchsorted(below, torch.tensor(1 - tail, dtype=torch.float64)))
        return float(edges[min(first, len(counts) - 1)]), float(edges[min(last, len(counts) - 1) + 1])


def squared_error(numbers: Tensor, counts: Tensor, low: Tensor, highs: Tensor) -> Tensor:
    """What rounding and clipping cost, of counted numbers (N,) in the range from `low` to each of `highs`: (highs,)."""
    steps = ((highs - low) / levels()).clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    held = steps * torch.round(numbers.clamp_min(low).minimum(highs[:, None]) / steps)  # (highs, N)
    return (counts * (held - numbers).square()).sum(1)


def fixed_range(low: float, high: float) -> StaticRange:
    """Scale and zero point over a range that always holds 0; a layer that only ever saw zeros gets the scale 1."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / levels()
    if not scale > 0:
        return StaticRange(1.0, 0)
    return StaticRange(scale, min(levels(), max(0, round(-low / scale))))
