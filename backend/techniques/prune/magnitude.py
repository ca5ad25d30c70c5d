"""The smallest weights set to zero: what sparsity does to quality, with no gain of a dense kernel."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from backend.recipe.switches.sparsity import Magnitude
from backend.techniques.base import Effect, Subject
from backend.techniques.prune.masks import choose, equal_everywhere, least_of_all
from backend.techniques.prune.sparsity import count, prunable, sparsity_effect, zero
from backend.techniques.registry import technique


@technique(Magnitude)
class MagnitudePruning:
    """Zeroes the smallest |w| of every linear layer but the output head (Han et al. 2015). Embeddings stay."""

    def apply(self, subject: Subject, switch: Magnitude) -> None:
        """Set the weights to zero in place.

        Raises:
            RecipeError: when no linear layer besides the head fits, or when one holds what is no number.
        """
        chosen = prunable(subject, switch)
        if switch.scope == "global":
            total = sum(linear.weight.numel() for linear in chosen.values())
            scores = [partial(size, linear) for linear in chosen.values()]
            masks = least_of_all(scores, round(switch.ratio * total))
        else:
            masks = (choose(size(one), switch.ratio, switch.pattern, by_row=False) for one in chosen.values())
        note = subject.notes[switch.kind]
        for (name, linear), mask in zip(chosen.items(), masks, strict=True):
            if equal_everywhere(size(linear)):
                note["equal"].append(name)
            zero(linear, mask)
        note["count"] = count(subject, switch)

    def read_back(self, subject: Subject, switch: Magnitude) -> Effect:
        """Count zeros in the live matrices."""
        return sparsity_effect(subject, switch, "the size of the weight")


def size(linear: nn.Linear) -> Tensor:
    """|w| (N, K) float32."""
    return linear.weight.detach().float().abs()
