"""The pace: how many tokens a step may feed for each to come within the time that was promised."""

from __future__ import annotations

FORGET = 0.98  # what an older step weighs, a step: the machine drifts, and keys and values grow
LEAST_STEPS = 4  # before this the line is not trusted


class Pace:
    """A line through the steps seen, seconds = a + b x tokens, by least squares that forget slowly.

    A step's time is the time per output token of every request in it, so the line read backwards is the batch size
    that keeps to a target. (Clipper, Crankshaw et al. 2017, adapts a batch to a latency target in the same spirit.)
    """

    def __init__(self, target_s: float) -> None:
        self.target_s = target_s
        self._sums = [0.0] * 5  # of weights, x, y, xx, xy
        self._steps = 0

    def hear(self, tokens: int, seconds: float) -> None:
        """One step took so long."""
        new = (1.0, tokens, seconds, tokens * tokens, tokens * seconds)
        self._sums = [FORGET * old + one for old, one in zip(self._sums, new, strict=True)]
        self._steps += 1

    def tokens(self, most: int) -> int:
        """Tokens that a step may feed, 1 to `most`; `most` without a target or while little was seen."""
        if not self.target_s or self._steps < LEAST_STEPS:
            return most
        w, x, y, xx, xy = self._sums
        spread = w * xx - x * x
        mean_x, mean_y = x / w, y / w
        # Where all steps were alike there is no slope to see: then time is taken to grow with the tokens alone.
        slope = (w * xy - x * y) / spread if spread > 1e-9 * w * w else mean_y / mean_x
        slope = max(slope, 1e-9)
        return max(1, min(most, int(mean_x + (self.target_s - mean_y) / slope)))
