"""Feed-forward neurons removed: smaller gate, up and down projections."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import BLOCKS, PruneNeurons, neurons_kept
from backend.techniques.anatomy import keep_columns, keep_rows, mlps, pass_one_token, text_config
from backend.techniques.base import Effect, Subject
from backend.techniques.prune.activity import chosen_by, measure
from backend.techniques.registry import technique


@technique(PruneNeurons)
class NeuronPruning:
    """Removes the same number of neurons from every layer, those that add least to its output first."""

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
        scores = importance(subject, blocks)
        for block, score in zip(blocks, scores, strict=True):
            keep = score.topk(kept).indices.sort().values
            for rows in entrances(block):
                keep_rows(rows, keep)
            keep_columns(block.down_proj, keep)
            if hasattr(block, "intermediate_size"):
                block.intermediate_size = kept
        text_config(subject.model).intermediate_size = kept
        subject.notes[switch.kind] = {"chosen_by": chosen_by(subject)}

    def read_back(self, subject: Subject, switch: PruneNeurons) -> Effect:
        """Measure the width that a token meets in front of every down projection."""
        passage = pass_one_token(subject.model)
        before, after = subject.facts.ffn, max(passage.ffn, default=subject.facts.ffn)
        block = next((step for step in BLOCKS if after % step == 0), 1)
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
                "chosen_by": subject.notes.get(switch.kind, {}).get("chosen_by", "nothing"),
            },
        )


def importance(subject: Subject, blocks: list[Any]) -> list[Tensor]:
    """One number a neuron (ffn,) for every layer: the norm of what it adds to the layer's output on the subject's text.

    That is the norm of its activation times the norm of its down column, the measure of Sun et al. 2023 (Wanda) taken
    over whole columns. Without text it is a product of weight norms, which in Gemma 3 is worse than chance.
    """
    if not subject.sample_ids:
        return [by_weights(block) for block in blocks]

    def added(down: nn.Linear, inputs: Tensor) -> Tensor:
        return inputs.norm(dim=0) * down.weight.float().norm(dim=0)

    return measure(subject, [block.down_proj for block in blocks], added)


def by_weights(block: Any) -> Tensor:
    """The product of the norms of each neuron's gate row, if it has one, its up row and its down column; (ffn,).

    A neuron's output is gate(x) * up(x) times its column, so it scales with all three.
    """
    score: Tensor = block.down_proj.weight.detach().float().norm(dim=0)
    for rows in entrances(block):
        score = score * rows.weight.detach().float().norm(dim=1)
    return score


def entrances(block: Any) -> list[nn.Linear]:
    """The matrices whose rows are neurons: gate and up, or up alone where there is no gate."""
    return [linear for name in ("gate_proj", "up_proj") if (linear := getattr(block, name, None)) is not None]
