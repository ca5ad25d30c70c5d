"""SparseGPT: weights set to zero whose loss the weights that are left make good."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from backend.recipe.switches.sparsity import SparseGpt
from backend.techniques.base import CalibrationText, Effect, Subject
from backend.techniques.calibrate import calibration_text, kept
from backend.techniques.hessian import inverse_factor, output_error
from backend.techniques.prune.masks import choose, equal_everywhere, unpack_mask
from backend.techniques.prune.obs import obs_pruning
from backend.techniques.prune.sparsity import MASK, chosen_mask, note_found, prunable, sparsity_effect
from backend.techniques.registry import technique
from backend.techniques.walk import Heard, Walk

VALUES, ERRORS = "values:", "errors:"  # before a layer's name on the shelf
UNHEARD = "nothing that is of use entered it on the text"


@technique(SparseGpt)
class SparseGptPruning:
    """Frantar and Alistarh 2023, one group of matrices after the other, each on what really enters it.

    As in this project's GPTQ a decoder layer is run once for each of its inputs, so that every matrix makes up for
    what was lost before it, too.
    """

    def apply(self, subject: Subject, switch: SparseGpt) -> None:
        """Prune on the text, or take the weights that came of it before.

        Raises:
            RecipeError: for a text that is too short, when no layer fits, or when one holds what is no number.
        """
        chosen = prunable(subject, switch)
        text = calibration_text(subject, switch)
        found, shelved = kept(subject, switch, text, lambda: prune_all(subject, switch, text, chosen))
        note = subject.notes[switch.kind]
        for name, linear in chosen.items():
            if MASK + name in found:
                _restore(linear, found[MASK + name], found[VALUES + name])
            else:
                note["reasons"][name] = UNHEARD
        note["errors"] = [found[key].tolist() for key in found if key.startswith(ERRORS)]
        note_found(subject, switch, text, found, shelved=shelved)

    def read_back(self, subject: Subject, switch: SparseGpt) -> Effect:
        """Count zeros in the live matrices; errors are those of the calibration text."""
        effect = sparsity_effect(subject, switch, "what the output of the layer loses, made good by what is left")
        errors = subject.notes.get(switch.kind, {}).get("errors")
        if errors and effect.took_effect:
            ours, plain = (sum(column) / len(errors) for column in zip(*errors, strict=True))
            effect.facts |= {"output_error": round(ours, 5), "output_error_of_magnitude": round(plain, 5)}
            effect.summary += f"; layers' outputs off by {ours:.1%}, by magnitude {plain:.1%}"
        return effect


def prune_all(
    subject: Subject, switch: SparseGpt, text: CalibrationText, chosen: Mapping[str, nn.Linear]
) -> dict[str, Tensor]:
    """Masks, the weights that are left, and errors, for the shelf; the model is pruned on the way."""
    walk, found = Walk(subject, switch.kind, text), dict[str, Tensor]()
    for index in range(len(walk.layers)):
        for readers in walk.readers(index):
            fit = {name: layer for name, layer in readers.items() if name in chosen}
            if not fit:
                continue
            first = next(iter(fit))
            subject.progress(index / len(walk.layers), f"SparseGPT on {text.source}: {first}")
            found |= _prune(switch, fit, walk.hear(index, {first: fit[first]})[first])
        walk.leave(index)
    return found


@torch.no_grad()
def _prune(switch: SparseGpt, layers: Mapping[str, nn.Linear], heard: Heard) -> dict[str, Tensor]:
    """Matrices that read the same input, pruned in place; nothing where the input is of no use."""
    factor = inverse_factor(heard.hessian, switch.damping) if heard.usable else None
    found: dict[str, Tensor] = {}
    if factor is None:
        return found
    unheard = heard.hessian.diagonal() == 0
    for name, linear in layers.items():
        before = linear.weight.detach().float()
        equal = equal_everywhere(before.abs()) and equal_everywhere(factor.diagonal())
        after, mask = obs_pruning(before, factor, switch.ratio, switch.pattern, unheard=unheard)
        plain = before.masked_fill(choose(before.abs(), switch.ratio, switch.pattern, by_row=False), 0)
        errors = [output_error(before, other, heard.hessian) for other in (after, plain)]
        linear.weight.copy_(after)
        found |= chosen_mask(name, mask, equal=equal)
        found |= {VALUES + name: linear.weight[~mask].cpu(), ERRORS + name: torch.tensor(errors)}
    return found


@torch.no_grad()
def _restore(linear: nn.Linear, mask: Tensor, values: Tensor) -> None:
    """Put back what was kept of a matrix: zeros, and what is left between them."""
    gone = unpack_mask(mask, linear.weight)
    linear.weight.masked_fill_(gone, 0)
    linear.weight.masked_scatter_(~gone, values.to(linear.weight))
