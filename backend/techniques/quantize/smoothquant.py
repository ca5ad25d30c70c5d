"""SmoothQuant: outliers of the activations moved into the weights, where a scale a channel can hold them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.recipe.switches.activations import SmoothQuant
from backend.techniques.base import CalibrationText, Effect, Subject
from backend.techniques.calibrate import calibration_text, hear_inputs, kept
from backend.techniques.quantize.activations import note_text, observed_ranges, pack, ready, w8a8_effect
from backend.techniques.quantize.fold import Fold, folds, unchanged
from backend.techniques.registry import technique

LEAST = 1e-5  # a channel that is always 0 is left alone


@technique(SmoothQuant)
class SmoothLayers:
    """Factors s = max|X|^alpha / max|W|^(1 - alpha) a channel (Xiao et al. 2023, equation 4), folded away.

    A decoder's norms take the factors of q, k, v and of gate and up; up takes those of down, since down reads the
    product of two vectors of which up is one. The output projection keeps its inputs: heads share what writes them.
    """

    def apply(self, subject: Subject, switch: SmoothQuant) -> None:
        """Find the factors on text, fold them, then multiply int8 by int8 as the switch says."""
        ready(subject, switch.kind)
        text = calibration_text(subject, switch)
        groups = folds(subject, switch.kind)
        first = {group.names[0]: group.readers[0] for group in groups}

        def calibrate() -> dict[str, Tensor]:
            largest = _largest_inputs(subject, text, first)
            return {group.names[0]: smoothing(group, largest[group.names[0]], switch.alpha) for group in groups}

        scales, found = kept(subject, switch, text, calibrate)
        with unchanged(subject):
            for group in groups:
                group.apply(scales[group.names[0]])
        ranges = None
        if switch.scale == "static":  # of the model as it is folded, which has a fingerprint of its own
            ranges, _ = kept(subject, switch, text, lambda: observed_ranges(subject, text, "mse"))
        pack(subject, switch.kind, ranges)
        note_text(subject, switch, text, found)
        subject.notes[switch.kind]["folded"] = len(groups)

    def read_back(self, subject: Subject, switch: SmoothQuant) -> Effect:
        """Count the layers, and say how many groups were folded."""
        effect = w8a8_effect(subject, switch.kind, static=switch.scale == "static")
        effect.facts["groups_smoothed"] = subject.notes.get(switch.kind, {}).get("folded")
        return effect


def _largest_inputs(subject: Subject, text: CalibrationText, layers: dict[str, nn.Linear]) -> dict[str, Tensor]:
    """max|X| of every input channel (K,) of these layers over the text."""
    largest: dict[str, Tensor] = {}

    def hear(name: str, layer: nn.Linear, rows: Tensor) -> None:
        seen = rows.abs().amax(dim=0)
        largest[name] = torch.maximum(largest[name], seen) if name in largest else seen

    hear_inputs(subject, text, layers, hear)
    return largest


def smoothing(group: Fold, largest: Tensor, alpha: float) -> Tensor:
    """The factors (K,) of a group, from max|X| (K,) of what enters it and the columns of its matrices."""
    columns = torch.stack([reader.weight.detach().abs().amax(dim=0) for reader in group.readers]).amax(dim=0)  # (K,)
    factors = largest.clamp_min(LEAST).pow(alpha) / columns.clamp_min(LEAST).pow(1 - alpha)
    return torch.where((largest > LEAST) & (columns > LEAST), factors, torch.ones_like(factors)).clamp(1e-3, 1e3)
