"""Warm-up: where a row of measured times settles, found by a change-point and not by a fixed count. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FEWEST = 4  # values below which no change can be told from noise
PENALTY = 3.0  # times ln(n): what a change-point has to lower the squared error by, in variances
FARTHEST = 5.0  # deviations at which a value is cut off, so that one interrupted request in mid-run is no change
LEAST_SPREAD = 0.002  # of a value: differences of a fifth of a percent are nobody's warm-up
LEAST_CHANGE = 0.01  # of a value: a slow drift of less is not worth half of the rounds
DIGITS = 9  # a unit must not decide between two places that are equally good but for rounding


def steady_from(values: Sequence[float]) -> int:
    """Index of the first value after the warm-up; 0 where none is found.

    One binary split on the logarithms: the place that leaves the least squared error around two means, taken when it
    lowers the error by more than 3 ln(n) variances (half of that again above what Schwarz's criterion asks for a mean
    and a place), parts two levels by a hundredth or more, and lies in the first third: what changes later is no
    warm-up, and on a machine that others use too such changes are many. The spread is read from neighbouring
    differences, which a step does not widen, and values are cut off at five deviations from the median of the second
    half. Source: Barrett et al. 2017, Virtual Machine Warmup Blows Hot and Cold (that warm-up is to be found and not
    assumed); Scott and Knott 1974 (binary segmentation).

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
    spread = max(float(np.median(np.abs(np.diff(logs)))) / (0.6745 * math.sqrt(2)), LEAST_SPREAD)
    scaled = np.round(np.clip((logs - np.median(logs[n // 2 :])) / spread, -FARTHEST, FARTHEST), DIGITS)
    counts = np.arange(1, n)  # how many values each split leaves out
    sums = np.cumsum(scaled)[:-1]
    gaps = sums / counts - (scaled.sum() - sums) / (n - counts)
    gains = np.round(counts * (n - counts) / n * gaps**2, DIGITS)  # what each split lowers the squared error by
    best = int(np.argmax(gains))
    clear = gains[best] > PENALTY * math.log(n) and abs(gaps[best]) * spread >= LEAST_CHANGE
    return int(counts[best]) if clear and counts[best] <= n // 3 else 0


def rounds_note(rounds: int, left_out: int) -> str:
    """Which rounds of a measurement count, and why, in words."""
    if left_out:
        return f"First {left_out} of {rounds} rounds left out as warm-up, found by change-point."
    return f"All {rounds} rounds count: no change-point was found, so nothing was left out as warm-up."
