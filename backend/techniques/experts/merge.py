"""Experts joined into one dense feed-forward part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backend.recipe.switches.experts import MergeExperts
from backend.techniques.anatomy import stack
from backend.techniques.base import Effect, Subject
from backend.techniques.expertlayers import Expert, expert_layers, linear_of
from backend.techniques.experts.routed import routed_parts, usage
from backend.techniques.registry import technique


@technique(MergeExperts)
class DenseFromExperts:
    """Puts the most used experts side by side in one part that every token passes, each with its mean weight.

    Real in bytes and in speed, and the model that experts must be held against: all of them make the dense model of
    equal total size, as many as a token passes make the one of equal active size. Its text is that of no trained
    model.
    """

    def apply(self, subject: Subject, switch: MergeExperts) -> None:
        """Replace every routed part; router and experts are freed.

        Raises:
            RecipeError: for an unknown build, or when there is no text to count on.
        """
        parts = routed_parts(subject, switch.kind)
        counts = usage(subject, parts) if switch.count < len(parts[0].experts) else _alike(parts)
        layers: list[Any] = [layer for layer in stack(subject.model, switch.kind) if layer.mlp in parts]
        for layer, part, count in zip(layers, parts, counts, strict=True):
            layer.mlp = merged(part, count.argsort(descending=True, stable=True)[: switch.count].sort().values)

    def read_back(self, subject: Subject, switch: MergeExperts) -> Effect:
        """Look at the live layers: none with experts, all with one dense part, and its width."""
        parts: list[Any] = [layer.mlp for layer in stack(subject.model, switch.kind)]
        widths = {part.down_proj.in_features for part in parts if isinstance(part, DensePart)}
        done = not expert_layers(subject.model) and len(widths) == 1
        words = f"one dense part of {max(widths)} neurons a layer, untrained in this form" if done else "still experts"
        return Effect(
            kind=switch.kind,
            took_effect=done,
            summary=words,
            facts={"experts_joined": switch.count, "neurons": max(widths, default=0), "needs_training": True},
        )


class DensePart(Expert):
    """One part that every token passes, where the model's code expects experts."""

    no_config = "one dense part in the place of experts"


def _alike(parts: list[Any]) -> Tensor:
    return torch.ones(len(parts), len(parts[0].experts), dtype=torch.long)


def merged(part: Any, numbers: Tensor) -> DensePart:
    """One part of these experts: gates, then ups, then downs side by side, each down scaled to an even share."""
    chosen = [part.experts[number] for number in numbers.tolist()]
    halves = [expert.gate_up_proj.weight.chunk(2) for expert in chosen]
    gate_up = torch.cat([gate for gate, _ in halves] + [up for _, up in halves])  # (2 * n * ffn, hidden)
    down = torch.cat([expert.down_proj.weight for expert in chosen], dim=1) / len(chosen)  # (hidden, n * ffn)
    return DensePart(linear_of(gate_up), linear_of(down), chosen[0].act_fn)
