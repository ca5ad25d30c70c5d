"""Warm-up: where a row of measured times settles, found by a change-point and not by a fixed count. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FEWEST = 4  # values below which no change can be told from noise
PENALTY = 3.0  # times ln(n): what a change-point has to lower the squared error by, in variances
FARTHEST = 5.0  # deviations at which a value is cut off, so that one interrupted request in mid-run is no change
LEAST_SPREAD = 0.002  # of a value: differences of a fifth of a percent are nobody's warm-up


def steady_from(values: Sequence[float]) -> int:
    """Index of the first value after the warm-up; 0 where none is found.

    One binary split on the logarithms: the place in the first half that leaves the least squared error around two
    means, taken when it lowers the error by more than 3 ln(n) variances (the penalty of Schwarz's criterion for a
    mean and a place, with a third for safety). The spread is read from neighbouring differences, which a step does
    not widen, and values are cut off at five deviations from the median of the second half, which is taken to be
    steady. Never more than half of the values are warm-up. Source: Barrett et al. 2017, Virtual Machine Warmup Blows
    Hot and Cold (that warm-up is to be found and not assumed); Scott and Knott 1974 (binary segmentation).

    Args:
        values: positive, in the order in which they were measured.
    Raises:
        ValueError: for a value that is not positive and finite.
    """
    logs = np.log(np.asarray(values, float))
    if not np.all(np.isfinite(logs)):
        raise ValueError("times must be positive")
    n = len(logs)
    if n < FEWEST:
        return 0
    centre = float(np.median(logs[n // 2 :]))
    spread = float(np.median(np.abs(np.diff(logs)))) / (0.6745 * math.sqrt(2))
    scaled = np.clip((logs - centre) / max(spread, LEAST_SPREAD), -FARTHEST, FARTHEST)
    counts = np.arange(1, n // 2 + 1)  # how many values each split leaves out
    sums = np.cumsum(scaled)[: n // 2]
    gaps = sums / counts - (scaled.sum() - sums) / (n - counts)
    gains = counts * (n - counts) / n * gaps**2  # what each split lowers the squared error by
    best = int(np.argmax(gains))
    return int(counts[best]) if gains[best] > PENALTY * math.log(n) else 0
