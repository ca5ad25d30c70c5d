"""Which units go: the lowest of each layer, or of all layers together, with those that a person named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

Named = Mapping[int, Iterable[int]]  # layer -> units


def marked(scores: Sequence[Tensor], remove: Named, keep: Named) -> list[Tensor]:
    """The scores with what must go below everything and what must stay above."""
    found = [score.clone() for score in scores]
    for named, value in ((remove, -torch.inf), (keep, torch.inf)):
        for layer, units in named.items():
            found[layer][list(units)] = value
    return found


def lost_globally(scores: Sequence[Tensor], total: int, step: int = 1) -> list[int]:
    """How many units each layer loses where all are ranked together, `step` neighbours in rank at a time.

    Scores are divided by their layer's norm first (Molchanov et al. 2017): layers differ in scale. Every layer keeps
    a step of units, and what is marked to stay. Equals go by layer and then by index.
    """
    ranked: list[tuple[float, int]] = []
    for layer, score in enumerate(scores):
        finite = score[torch.isfinite(score)]
        length = float(finite.norm()) or 1.0
        steps = (score.sort(stable=True).values / length).reshape(-1, step).mean(1)  # (units / step,)
        ranked += [(value, layer) for value in steps[:-1].tolist() if value < float("inf")]
    lost = [0] * len(scores)
    for _, layer in sorted(ranked)[: total // step]:
        lost[layer] += step
    return lost


def stay(score: Tensor, lost: int) -> Tensor:
    """Indices, in order, of what stays when the `lost` lowest go; of equals the first go."""
    return score.argsort(stable=True)[lost:].sort().values


def tied(scores: Sequence[Tensor], lost: Sequence[int]) -> int:
    """In how many layers the last that went and the first that stayed are worth the same."""
    ranked = [(score.sort().values, count) for score, count in zip(scores, lost, strict=True)]
    return sum(0 < count < len(row) and bool(row[count - 1] == row[count]) for row, count in ranked)


def tie_words(layers: int) -> str:
    """What the receipt says of ties."""
    return f"broken by index in {layers} layer{'s' if layers > 1 else ''}" if layers else "none"
