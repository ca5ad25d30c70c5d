"""Feed-forward neurons removed: smaller gate, up and down projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import BLOCKS, TOLERANCE, PruneNeurons
from backend.techniques.anatomy import keep_columns, keep_rows, mlps, pass_one_token, refusal_to_reload, text_config
from backend.techniques.base import Effect, Subject
from backend.techniques.prune.activity import Part
from backend.techniques.prune.importance import importance
from backend.techniques.prune.select import lost_globally, stay, tie_words, tied
from backend.techniques.registry import technique

UNEVEN = "transformers has no word for widths that differ by layer: saved here it loads here, and nowhere else"


@technique(PruneNeurons)
class NeuronPruning:
    """Removes the neurons of the lowest rank, as many from every layer or the lowest of all."""

    def apply(self, subject: Subject, switch: PruneNeurons) -> None:
        """Cut the MLP of every layer.

        Raises:
            RecipeError: for an unknown build, when no neuron would be left, or where the ranking cannot be had.
        """
        blocks = mlps(subject.model, switch.kind)
        parts = [part_of(block) for block in blocks]
        scores, way = importance(subject, parts, switch.kind, switch.by, switch.seed)
        lost = losses(scores, switch)
        for block, score, count in zip(blocks, scores, lost, strict=True):
            keep = stay(score, count)
            for rows in entrances(block):
                keep_rows(rows, keep)
            keep_columns(block.down_proj, keep)
            if hasattr(block, "intermediate_size"):
                block.intermediate_size = len(keep)
        widths = {block.down_proj.in_features for block in blocks}
        if len(widths) == 1:  # else the config keeps what can be built
            text_config(subject.model).intermediate_size = widths.pop()
        subject.notes[switch.kind] = {"chosen_by": way, "ties": tie_words(tied(scores, lost))}

    def read_back(self, subject: Subject, switch: PruneNeurons) -> Effect:
        """Measure the width that a token meets in front of every down projection."""
        widths = pass_one_token(subject.model).ffn or [subject.facts.ffn]
        before, after, uneven = subject.facts.ffn, sum(widths) / len(widths), len(set(widths)) > 1
        shown = f"{min(widths)} to {max(widths)}" if uneven else str(widths[0])
        notes = subject.notes.get(switch.kind, {})
        refusal = refusal_to_reload(subject.model)
        plain = f"transformers refuses it: {refusal}" if refusal else "can be loaded again"
        return Effect(
            kind=switch.kind,
            took_effect=after < before,
            summary=f"{shown} of {before} neurons a layer, {1 - after / before:.1%} fewer",
            facts={
                "asked_ratio": switch.ratio,
                "real_ratio": 1 - after / before,
                "neurons_before": before,
                "neurons_after": ", ".join(map(str, widths)) if uneven else widths[0],
                "multiple_of": next((step for step in BLOCKS if all(width % step == 0 for width in widths)), 1),
                "chosen_by": notes.get("chosen_by", "nothing"),
                "ties": notes.get("ties", "none"),
                "saved_config": UNEVEN if uneven else plain,
            },
        )


def part_of(block: Any) -> Part:
    """A feed-forward block's neurons."""
    return Part(block.down_proj, block.down_proj.in_features, tuple(entrances(block)))


def losses(scores: Sequence[Tensor], switch: PruneNeurons) -> list[int]:
    """How many neurons each layer loses.

    Raises:
        RecipeError: when a layer would lose all.
    """
    units = [len(score) for score in scores]
    if switch.scope == "global":
        total = switch.count or round(switch.ratio * sum(units))
        step = 1 if switch.count else next(step for step in BLOCKS if step == 1 or _fits(step, units))
        lost = lost_globally(scores, round(total / step) * step, step)
        if abs(sum(lost) - total) <= step:
            return lost
    else:
        lost = [own - switch.kept(own, len(units)) for own in units]
        if all(own > count for own, count in zip(units, lost, strict=True)):
            return lost
    allowed = f"a ratio of at most {1 - 1 / min(units):.3g}, or a count below {min(units)} a layer"
    raise RecipeError(f"switches.{switch.kind}.ratio", switch.count or switch.ratio, allowed, "Remove fewer.")


def _fits(step: int, units: Sequence[int]) -> bool:
    """Whether every width is a whole number of steps, and a step is little of all of them."""
    return all(own % step == 0 and own > step for own in units) and step <= TOLERANCE * sum(units)


def entrances(block: Any) -> list[nn.Linear]:
    """The matrices whose rows are neurons: gate and up, or up alone where there is no gate."""
    return [linear for name in ("gate_proj", "up_proj") if (linear := getattr(block, name, None)) is not None]
