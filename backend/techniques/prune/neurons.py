"""Feed-forward neurons removed: smaller gate, up and down projections."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import PruneNeurons
from backend.techniques.anatomy import keep_columns, keep_rows, mlps, pass_one_token, text_config
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique

STEPS = (32, 16, 8, 4, 2, 1)  # packed kernels want whole blocks of 32
TOLERANCE = 0.01  # of the ratio that was asked for


@technique(PruneNeurons)
class NeuronPruning:
    """Removes the same number of neurons from every layer, those with the smallest weights first (Li et al. 2017)."""

    def apply(self, subject: Subject, switch: PruneNeurons) -> None:
        """Cut the MLP of every layer.

        Raises:
            RecipeError: for an unknown build, or when no neuron would be left.
        """
        blocks = mlps(subject.model, switch.kind)
        ffn = blocks[0].down_proj.in_features
        kept = neurons_kept(ffn, switch.ratio)
        if kept < 1:
            remedy = "Lower the ratio."
            raise RecipeError(f"switches.{switch.kind}.ratio", switch.ratio, f"at most {1 - 1 / ffn:.3g}", remedy)
        for block in blocks:
            keep = importance(block).topk(kept).indices.sort().values
            keep_rows(block.gate_proj, keep)
            keep_rows(block.up_proj, keep)
            keep_columns(block.down_proj, keep)
            if hasattr(block, "intermediate_size"):
                block.intermediate_size = kept
        text_config(subject.model).intermediate_size = kept

    def read_back(self, subject: Subject, switch: PruneNeurons) -> Effect:
        """Measure the width that a token meets in front of every down projection."""
        passage = pass_one_token(subject.model)
        before, after = subject.facts.ffn, max(passage.ffn, default=subject.facts.ffn)
        block = next((step for step in STEPS if after % step == 0), 1)
        return Effect(
            kind=switch.kind,
            took_effect=after < before,
            summary=f"{after} of {before} neurons a layer, {1 - after / before:.1%} fewer",
            facts={
                "asked_ratio": switch.ratio,
                "real_ratio": 1 - after / before,
                "neurons_before": before,
                "neurons_after": after,
                "multiple_of": block,
            },
        )


def neurons_kept(ffn: int, ratio: float) -> int:
    """How many neurons stay: a whole number of blocks of 32, or of smaller ones where 32 would miss the ratio by 1%."""
    exact = (1 - ratio) * ffn
    for step in STEPS:
        kept = round(exact / step) * step
        if abs(kept - exact) <= TOLERANCE * ffn and 0 < kept <= ffn:
            return kept
    return round(exact)


def importance(block: Any) -> Tensor:
    """One number a neuron (ffn,): the product of the norms of its gate row, its up row and its down column.

    A neuron's output is gate(x) * up(x) times its column, so it scales with all three.
    """
    gate, up, down = (getattr(block, name).weight.detach().float() for name in ("gate_proj", "up_proj", "down_proj"))
    score: Tensor = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
    return score
