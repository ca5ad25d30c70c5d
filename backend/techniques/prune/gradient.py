"""The weights set to zero that the loss of a text hangs on least."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from backend.recipe.switches.sparsity import GradientSparsity
from backend.techniques.base import CalibrationText, Effect, Subject
from backend.techniques.calibrate import calibration_text, kept
from backend.techniques.prune.gradients import WINDOW, importances
from backend.techniques.prune.masks import choose, equal_everywhere, least_of_all, unpack_mask
from backend.techniques.prune.sparsity import MASK, chosen_mask, note_found, prunable, sparsity_effect, zero
from backend.techniques.registry import technique

MEASURES = {
    "taylor": "|gradient times weight|, first order",
    "fisher": f"squared gradient times squared weight, over windows of {WINDOW} tokens",
    "obd": "half the curvature times squared weight, Gauss-Newton from tokens that the model drew",
}


@technique(GradientSparsity)
class GradientPruning:
    """Taylor, Fisher or OBD on the whole model, before the first weight goes; of every matrix, or of all together."""

    def apply(self, subject: Subject, switch: GradientSparsity) -> None:
        """Choose the weights on the text, or take those that were chosen before, and set them to zero in place.

        Raises:
            RecipeError: for a text that is too short, when no layer fits, or when one holds what is no number.
        """
        chosen = prunable(subject, switch)
        text = calibration_text(subject, switch)
        found, shelved = kept(subject, switch, text, lambda: choose_all(subject, switch, text, chosen))
        for name, linear in chosen.items():
            zero(linear, unpack_mask(found[MASK + name], linear.weight))
        note_found(subject, switch, text, found, shelved=shelved)

    def read_back(self, subject: Subject, switch: GradientSparsity) -> Effect:
        """Count zeros in the live matrices."""
        return sparsity_effect(subject, switch, MEASURES[switch.by])


def choose_all(
    subject: Subject, switch: GradientSparsity, text: CalibrationText, chosen: Mapping[str, nn.Linear]
) -> dict[str, Tensor]:
    """Masks for the shelf; the model stays as it is."""
    scores = importances(subject, switch.by, text, chosen)
    masks: Iterable[Tensor]
    if switch.scope == "global":
        total = sum(score.numel() for score in scores.values())
        masks = least_of_all([score.clone for score in scores.values()], round(switch.ratio * total))
    else:
        masks = (choose(score, switch.ratio, switch.pattern, by_row=False) for score in scores.values())
    found: dict[str, Tensor] = {}
    for (name, score), mask in zip(scores.items(), masks, strict=True):
        found |= chosen_mask(name, mask, equal=equal_everywhere(score))
    return found
