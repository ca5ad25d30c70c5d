"""Whole experts removed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.experts import PruneExperts
from backend.techniques.base import Effect, Subject
from backend.techniques.expertlayers import Experts
from backend.techniques.experts.routed import routed_parts, set_count, set_top_k, usage
from backend.techniques.registry import technique


@technique(PruneExperts)
class ExpertPruning:
    """Removes as many experts from every layer, and their rows of the router; the others share the router's odds."""

    def apply(self, subject: Subject, switch: PruneExperts) -> None:
        """Take them out.

        Raises:
            RecipeError: for an unknown build, weights that are no numbers, or when there is no text to count on.
        """
        parts = routed_parts(subject, switch.kind)
        scores = importance(subject, parts, switch)
        left = len(parts[0].experts) - switch.count
        gone = []
        for part, score in zip(parts, scores, strict=True):
            kept = score.argsort(descending=True, stable=True)[:left].sort().values  # of equals the first stay
            gone.append(sorted(set(range(len(part.experts))) - set(kept.tolist())))
            keep_experts(part, kept)
        set_count(subject, parts, left)
        set_top_k(subject, parts, min(parts[0].gate.top_k, left))
        ties = bool((scores == scores[:, :1]).all())
        subject.notes[switch.kind] = {"gone": gone, "ties": ties}

    def read_back(self, subject: Subject, switch: PruneExperts) -> Effect:
        """Count the experts of the live layers."""
        parts = routed_parts(subject, switch.kind)
        now, before = [len(part.experts) for part in parts], subject.facts.experts
        notes = subject.notes.get(switch.kind, {"gone": [], "ties": False})
        gone = "; ".join(f"{layer}: {', '.join(map(str, numbers))}" for layer, numbers in enumerate(notes["gone"]))
        by = {"usage": "tokens they get", "weights": "norm of their weights", "random": f"chance, seed {switch.seed}"}
        tail = "; all were equal, so the first stayed" if notes["ties"] else ""
        return Effect(
            kind=switch.kind,
            took_effect=set(now) == {before - switch.count},
            summary=f"{max(now)} of {before} experts a layer{tail}",
            facts={"experts_before": before, "experts_after": max(now), "removed": gone, "chosen_by": by[switch.by]},
        )


def importance(subject: Subject, parts: list[Any], switch: PruneExperts) -> Tensor:
    """One number an expert, (layers, experts); what is least goes first.

    Raises:
        RecipeError: for weights that are no numbers, or when there is no text to count on.
    """
    norms = torch.stack([torch.stack([_norm(expert) for expert in part.experts]) for part in parts])
    if not norms.isfinite().all():
        layer, number = (int(place) for place in (~norms.isfinite()).nonzero()[0])
        value = f"expert {number} of layer {layer}"
        raise RecipeError(f"switches.{switch.kind}", value, "weights that are numbers", "Load the model again.")
    if switch.by == "random":
        return torch.rand(norms.shape, generator=torch.Generator().manual_seed(switch.seed))
    return norms if switch.by == "weights" else usage(subject, parts)


def _norm(expert: nn.Module) -> Tensor:
    return torch.stack([weight.float().norm() for weight in expert.parameters()]).norm().cpu()


def keep_experts(part: Any, kept: Tensor) -> None:
    """Leave these experts and their rows of the router, in place."""
    capacity = part.experts.capacity
    part.experts = Experts([part.experts[number] for number in kept.tolist()])
    part.experts.capacity = capacity
    router = part.gate
    router.weight = nn.Parameter(router.weight.detach()[kept.to(router.weight.device)].clone(), requires_grad=False)
