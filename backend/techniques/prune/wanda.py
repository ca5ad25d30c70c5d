"""Wanda: weights set to zero by their size and by what really enters them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from backend.recipe.switches.sparsity import Wanda
from backend.techniques.base import CalibrationText, Effect, Subject
from backend.techniques.calibrate import calibration_text, hear_inputs, kept
from backend.techniques.prune.masks import choose, equal_everywhere, unpack_mask
from backend.techniques.prune.sparsity import MASK, chosen_mask, note_found, prunable, sparsity_effect, zero
from backend.techniques.registry import technique
from backend.techniques.walk import Walk

UNHEARD = "nothing entered it on the text"


@technique(Wanda)
class WandaPruning:
    """Sun et al. 2023: of every row the weights with the smallest |w| ||x||, x one input over all tokens.

    In a decoder one layer after the other, each on what the pruned layers before it write; in an encoder all on what
    enters them in the whole model.
    """

    def apply(self, subject: Subject, switch: Wanda) -> None:
        """Choose the weights on the text, or take those that were chosen before, and set them to zero in place.

        Raises:
            RecipeError: for a text that is too short, when no layer fits, or when one holds what is no number.
        """
        chosen = prunable(subject, switch)
        text = calibration_text(subject, switch)
        compute = by_layer if subject.facts.task == "decoder" else at_once
        found, shelved = kept(subject, switch, text, lambda: compute(subject, switch, text, chosen))
        for name, linear in chosen.items():
            if MASK + name in found:
                zero(linear, unpack_mask(found[MASK + name], linear.weight))
            else:
                subject.notes[switch.kind]["reasons"][name] = UNHEARD
        note_found(subject, switch, text, found, shelved=shelved)

    def read_back(self, subject: Subject, switch: Wanda) -> Effect:
        """Count zeros in the live matrices."""
        return sparsity_effect(subject, switch, "the size of the weight times the norm of its input")


def by_layer(
    subject: Subject, switch: Wanda, text: CalibrationText, chosen: Mapping[str, nn.Linear]
) -> dict[str, Tensor]:
    """Masks for the shelf; the model is pruned on the way."""
    walk, found = Walk(subject, switch.kind, text), dict[str, Tensor]()
    for index in range(len(walk.layers)):
        subject.progress(index / len(walk.layers), f"Wanda on {text.source}: layer {index + 1} of {len(walk.layers)}")
        groups = walk.readers(index)
        heard = walk.hear_squares(index, {next(iter(readers)): next(iter(readers.values())) for readers in groups})
        for readers in groups:
            squares = heard[next(iter(readers))]  # what enters one of them enters all
            for name, linear in readers.items():
                if name in chosen:
                    found |= _prune(switch, name, linear, squares)
        walk.leave(index)
    return found


def at_once(
    subject: Subject, switch: Wanda, text: CalibrationText, chosen: Mapping[str, nn.Linear]
) -> dict[str, Tensor]:
    """Masks for the shelf, all on the inputs of the whole model."""
    squares, found = dict[str, Tensor](), dict[str, Tensor]()

    def hear(name: str, layer: nn.Module, inputs: Tensor) -> None:
        more = inputs.square().sum(dim=0)
        squares[name] = squares[name] + more if name in squares else more

    hear_inputs(subject, text, chosen, hear)
    for name, entered in squares.items():
        found |= _prune(switch, name, chosen[name], entered)
    return found


def _prune(switch: Wanda, name: str, linear: nn.Linear, squares: Tensor) -> dict[str, Tensor]:
    scores = importance(linear.weight, squares)
    mask = choose(scores, switch.ratio, switch.pattern, by_row=True)
    zero(linear, mask)
    return chosen_mask(name, mask, equal=equal_everywhere(scores))


def importance(weight: Tensor, squares: Tensor) -> Tensor:
    """|w_ij| ||x_j|| (N, K) float32, from the sums of the squares of the inputs (K,)."""
    return weight.detach().float().abs() * squares.sqrt()
