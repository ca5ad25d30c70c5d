"""Pure arithmetic: timestamps become TTFT, TPOT and ITL; paired runs become a ratio with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats

# Two lanes with the same recipe differ by up to this much on one machine, for example by where their memory lies
# (benchmarks/fairness.py measures it): an interval that reaches this close to 1 is called noise.
NOISE = 0.015


@dataclass(frozen=True)
class Request:
    """One whole request: when it began is 0, `emitted_s` is when each token was out."""

    emitted_s: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.emitted_s[0]

    @property
    def e2e_s(self) -> float:
        """End-to-end latency."""
        return self.emitted_s[-1]

    @property
    def tpot_s(self) -> float:
        """(end-to-end latency - TTFT) / (output tokens - 1)."""
        return (self.e2e_s - self.ttft_s) / max(1, len(self.emitted_s) - 1)

    @property
    def itl_s(self) -> list[float]:
        """Gaps between emissions; tokens that come out together count as one emission."""
        times = sorted(set(self.emitted_s))
        return [b - a for a, b in pairwise(times)]

    @property
    def tokens_per_s(self) -> float:
        """Decode speed: 1 / TPOT."""
        return 1 / self.tpot_s if self.tpot_s > 0 else math.inf


@dataclass(frozen=True)
class Ratio:
    """A paired ratio: Hodges-Lehmann estimate and 95% interval, on a log scale."""

    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def width(self) -> float:
        """Width of the interval relative to the ratio."""
        return (self.high - self.low) / self.ratio if math.isfinite(self.high) else math.inf

    @property
    def is_open(self) -> bool:
        """Whether the estimate says that lanes differ and its interval does not yet: more pairs may decide it."""
        return self.within_noise and abs(self.ratio - 1) > NOISE

    @property
    def within_noise(self) -> bool:
        """Whether the interval reaches to where two equal lanes may differ."""
        return self.low <= 1 + NOISE and self.high >= 1 - NOISE

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"within_noise": self.within_noise}


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float], level: float = 0.95) -> Ratio:
    """The ratio of paired positive figures, with an interval.

    Six pairs or more: Hodges-Lehmann estimate with the interval of the Wilcoxon signed-rank test, exact up to 25
    pairs (Hollander and Wolfe, Nonparametric Statistical Methods, 3.3). Fewer: Student's t on the logarithms.

    Raises:
        ValueError: without a pair, or for a figure that is not positive.
    """
    logs = np.log(np.asarray(numerators, float)) - np.log(np.asarray(denominators, float))
    n = len(logs)
    if n == 0 or not np.all(np.isfinite(logs)):
        raise ValueError("paired figures must be positive, and there must be one pair at least")
    if n < 6:
        centre = float(logs.mean())
        half = _t_half_width(logs, level)
        return Ratio(math.exp(centre), math.exp(centre - half), _exp(centre + half), n)
    i, j = np.triu_indices(n)
    walsh = np.sort((logs[i] + logs[j]) / 2)  # (n (n + 1) / 2,)
    rank = _signed_rank_quantile(n, (1 - level) / 2)
    return Ratio(math.exp(float(np.median(walsh))), math.exp(float(walsh[rank])), math.exp(float(walsh[-1 - rank])), n)


def _t_half_width(values: np.ndarray, level: float) -> float:
    if len(values) < 2:
        return math.inf
    return float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _signed_rank_quantile(n: int, tail: float) -> int:
    """Index into the sorted Walsh averages that bounds the interval: the largest k with P(T <= k) <= tail."""
    if n > 25:
        mean, sd = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return max(0, math.floor(mean + stats.norm.ppf(tail) * sd) - 1)
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1
    for rank in range(1, n + 1):
        counts[rank:] += counts[:-rank].copy()
    cumulative = np.cumsum(counts) / 2.0**n  # P(T <= t)
    return max(0, int(np.searchsorted(cumulative, tail, side="right")) - 1)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean with Student's t interval: (mean, low, high)."""
    data = np.asarray(values, float)
    half = _t_half_width(data, level)
    return float(data.mean()), float(data.mean() - half), float(data.mean() + half)


def changed_answers_p(baseline: Sequence[int], variant: Sequence[int]) -> float:
    """Exact McNemar test: the chance of so uneven a change if both answer equally well."""
    gained = sum(v > b for b, v in zip(baseline, variant, strict=True))
    lost = sum(v < b for b, v in zip(baseline, variant, strict=True))
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def share_interval(right: int, asked: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share: (low, high) (Wilson 1927; needs no large numbers)."""
    found = stats.binomtest(right, asked).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def repetition_rate(ids: Sequence[int], n: int = 4) -> float | None:
    """Share of a text's n-grams that stood in it before; None for a text shorter than n + 1 tokens.

    1 less the share of distinct n-grams (Li et al. 2016, arXiv:1510.03055), from token ids.
    """
    grams = [tuple(ids[at : at + n]) for at in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else None


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Mean, p50, p95, p99 and max."""
    data = np.asarray(values, float)
    p50, p95, p99 = (float(x) for x in np.percentile(data, (50, 95, 99)))
    return {"mean": float(data.mean()), "p50": p50, "p95": p95, "p99": p99, "max": float(data.max())}


def cost_per_million(tokens_per_s: float, price_per_hour: float) -> float:
    """What a million tokens cost at this speed, in the currency of the price."""
    return price_per_hour / 3600 / tokens_per_s * 1e6
