"""What heads and layers are worth, by every ranking that a pruning switch offers, in the order of their layers."""

from __future__ import annotations

from typing import Any

from backend.recipe.switches.layers import DropLayers
from backend.recipe.switches.pruning import PruneHeads
from backend.techniques.anatomy import attentions, head_widths, stack
from backend.techniques.base import Subject
from backend.techniques.prune.activity import CALIBRATION_TOKENS
from backend.techniques.prune.heads import part_of
from backend.techniques.prune.importance import importance
from backend.techniques.prune.layers import DISTANCES, rank

HEADS = ("output", "weights", "activation", "taylor", "entropy")
LAYERS = tuple(DISTANCES)


def asked(subject: Subject) -> dict[str, Any]:
    """Which rankings there are of which part, on how many tokens, and what a unit of heads is."""
    heads, kv_heads = head_widths(attentions(subject.model, PruneHeads.kind)[0])
    return {
        "rankings": [*(("heads", by) for by in HEADS), *(("layers", by) for by in LAYERS)],
        "tokens": len(subject.sample_ids[:CALIBRATION_TOKENS]),
        "together": heads // kv_heads if kv_heads > 1 else 1,
    }


def scores(subject: Subject, part: str, by: str) -> list[list[float]]:
    """The worth of every unit: L x units of heads, L x 1 of layers. The lowest goes first.

    Raises:
        RecipeError: for a build or a ranking that cannot be had.
    """
    return RANKED[part](subject, by)


def _of_heads(subject: Subject, by: str) -> list[list[float]]:
    parts = [part_of(block) for block in attentions(subject.model, PruneHeads.kind)]
    found, _ = importance(subject, parts, PruneHeads.kind, by)
    return [score.tolist() for score in found]


def _of_layers(subject: Subject, by: str) -> list[list[float]]:
    switch = DropLayers.read({"by": by})
    return [[value] for value in rank(subject, stack(subject.model, DropLayers.kind), switch, 1).tolist()]


RANKED = {"heads": _of_heads, "layers": _of_layers}
