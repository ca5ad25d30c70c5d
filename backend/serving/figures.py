"""What a load was served like: throughput, goodput and latencies, from when each request came, began and ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.recipe.serving import Targets

SHARES = (50, 95, 99)


@dataclass(frozen=True)
class Served:
    """One request that has ended; seconds on the lane clock."""

    id: int
    arrival_s: float
    first_s: float
    end_s: float
    tokens: int

    @property
    def ttft_s(self) -> float:
        """To the first token, waiting included."""
        return self.first_s - self.arrival_s

    @property
    def tpot_s(self) -> float:
        """For each further token; 0 for an answer of one."""
        return (self.end_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 else 0.0

    @property
    def latency_s(self) -> float:
        """From its arrival to its last token."""
        return self.end_s - self.arrival_s

    def keeps(self, targets: Targets) -> bool:
        """Whether it was served as promised."""
        return self.ttft_s <= targets.ttft_s and self.tpot_s <= targets.tpot_s


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` percent of all do not exceed (nearest rank).

    >>> percentile([3.0, 1.0, 2.0, 4.0], 50)
    2.0
    """
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share / 100 * len(ranked)) - 1)]


def summary(served: Sequence[Served], clock_s: float, targets: Targets) -> dict[str, Any]:
    """Figures of all that have ended by `clock_s`; empty before the first has.

    Goodput is requests a second that kept to both targets (DistServe, Zhong et al. 2024).
    """
    if not served or clock_s <= 0:
        return {}
    good = sum(one.keeps(targets) for one in served)
    found: dict[str, Any] = {
        "requests": len(served),
        "clock_s": clock_s,
        "tokens": sum(one.tokens for one in served),
        "tokens_per_s": sum(one.tokens for one in served) / clock_s,
        "requests_per_s": len(served) / clock_s,
        "good": good,
        "goodput_per_s": good / clock_s,
    }
    for name in ("ttft_s", "tpot_s", "latency_s"):
        values = [getattr(one, name) for one in served if name != "tpot_s" or one.tokens > 1]
        for share in SHARES if values else ():
            found[f"{name.removesuffix('_s')}_p{share}_s"] = percentile(values, share)
    return found
