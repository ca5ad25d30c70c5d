"""Routing: which experts each token went to, and how evenly a layer's work is shared among its experts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

Counts = list[list[int]]  # layers x experts: choices that fell on each


@dataclass
class Routing:
    """What the routers of one lane chose in a race."""

    experts: int = 0  # of the layer that has most; 0 where the model has none
    picks: list[Counts] = field(default_factory=list)  # token -> layer -> experts, the likeliest first
    prompt: Counts = field(default_factory=list)
    pairs: int = 0  # choices made for the prompt
    dropped: int = 0  # of those, what was beyond an expert's capacity

    def take(self, data: dict[str, Any]) -> None:
        """Fold in one event, as `engine/routes.py` makes it."""
        self.experts = data["experts"]
        self.picks += data["picks"]
        if told := data.get("prompt"):
            self.prompt, self.pairs, self.dropped = told["counts"], told["pairs"], told["dropped"]

    @property
    def written(self) -> Counts:
        """Choices by layer and expert of the tokens that were written and read again."""
        layers = len(self.picks[0]) if self.picks else 0
        counts = [[0] * self.experts for _ in range(layers)]
        for token in self.picks:
            for layer, chosen in enumerate(token):
                for expert in chosen:
                    counts[layer][expert] += 1
        return counts

    @property
    def counts(self) -> Counts:
        """The same with the prompt's."""
        if not (self.prompt and self.picks):
            return self.prompt or self.written
        return [
            [read + wrote for read, wrote in zip(*rows, strict=True)]
            for rows in zip(self.prompt, self.written, strict=True)
        ]

    @property
    def share_dropped(self) -> float:
        """Of the choices made for the prompt."""
        return self.dropped / self.pairs if self.pairs else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The verdict's entry: balance over the layers, what was dropped, and experts a token."""
        counts = self.counts
        found = [balance(row) for row in counts]
        each = [len(chosen) for token in self.picks for chosen in token]
        return {
            "experts": self.experts,
            "per_token": max(each, default=0),
            "tokens": len(self.picks),
            "variation": fmean(one["variation"] for one in found),
            "variation_worst": max(one["variation"] for one in found),
            "entropy": fmean(one["entropy"] for one in found),
            "idle": sum(one["idle"] for one in found),
            "share_dropped": self.share_dropped,
            "counts": counts,
        }


def balance(counts: Sequence[int]) -> dict[str, Any]:
    """How evenly the choices of one layer fall on its experts.

    Returns:
        `variation`, the coefficient of variation (standard deviation over mean; 0 is even), `entropy` over that of an
        even share (1 is even, 0 all on one), `idle`, experts that got nothing.
    """
    total, experts = sum(counts), len(counts)
    if not total or experts < 2:
        return {"variation": 0.0, "entropy": 1.0, "idle": 0 if total else experts}
    shares = [count / total for count in counts]
    entropy = -math.fsum(share * math.log(share) for share in shares if share) / math.log(experts)
    return {"variation": pstdev(shares) * experts, "entropy": entropy, "idle": counts.count(0)}
