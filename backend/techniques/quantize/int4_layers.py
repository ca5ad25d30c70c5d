"""What every switch shares whose weights end in the packed int4 layers: putting them in, and reading them back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from backend.recipe.grouped import Grouped
from backend.techniques.base import CalibrationText, Effect, Skipped, Subject
from backend.techniques.quantize.census import layer_format, quantization_effect
from backend.techniques.quantize.chosen import Chosen
from backend.techniques.quantize.groups import Groups
from backend.techniques.quantize.int4_linear import NEAREST, Int4Linear
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.layers import head_name
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.walk import windows_of

Choose = Callable[[str, nn.Linear], Groups | None]  # codes for a layer; None rounds it to nearest

# On the random token with which a layer is tried. Codes that fit the model's own inputs, or are few, err more there
# than rounding to nearest in 4 bits does (.1); a broken kernel errs by 1 and more.
LARGEST_ERROR = 0.9


def pack_chosen(subject: Subject, switch: Grouped, choose: Choose, method: str) -> None:
    """Replace every linear layer by a packed one with chosen codes, the output head as the switch says.

    Raises:
        RecipeError: when not one layer could be replaced.
    """
    head = head_name(subject.model)

    def build(name: str, layer: nn.Linear) -> nn.Module | str:
        if reason := stays(switch, name, layer, head):
            return reason
        if name == head and switch.head == "int8":
            return Int8Linear(layer)
        groups = choose(name, layer)
        return Int4Linear(layer, switch.group_size, groups, method if groups else NEAREST)

    swap_linears(subject, switch.kind, build, LARGEST_ERROR)


def stays(switch: Grouped, name: str, layer: nn.Linear, head: str | None) -> str | None:
    """The reason why the switch leaves this layer as it is, or None."""
    if name == head and switch.head == "keep":
        return "the output head is kept, as asked"
    if not torch.isfinite(layer.weight).all():
        return "some of its weights are no finite numbers"
    if layer.in_features < switch.group_size and not (name == head and switch.head == "int8"):
        return f"{layer.in_features} inputs do not fill one group of {switch.group_size}"
    return None


def grouped_effect(subject: Subject, switch: Grouped, method: str = NEAREST) -> Effect:
    """Count the packed layers in the live model, what chose their codes, and those whose width was padded."""
    effect = quantization_effect(subject, switch.kind, lambda layer: layer_format(layer) == "int4")
    own = [layer for layer in subject.model.modules() if isinstance(layer, Int4Linear)]
    effect.facts["group_size"] = ", ".join(sorted({str(layer.group_size) for layer in own})) or None
    effect.facts["layers_with_padded_inputs"] = sum(layer.padding > 0 for layer in own)
    if subject.device.type != "cuda":
        chosen = sum(layer.method == method for layer in own)
        effect.facts["codes_chosen_by"] = f"{method} x {chosen}" if chosen else None
        effect.took_effect = effect.took_effect and chosen > 0
    effect.took_effect = effect.took_effect and all(layer.group_size == switch.group_size for layer in own)
    return effect


def pack_calibrated(
    subject: Subject, switch: Grouped, chosen: Chosen, method: str, text: CalibrationText, shelved: bool
) -> None:
    """Replace every linear layer with the codes that a text led to, and note for the receipt what it was."""
    pack_chosen(subject, switch, lambda name, layer: chosen.groups.get(name), method)
    subject.notes[switch.kind] |= {
        "calibration_tokens": sum(len(window) for window in windows_of(text)),
        "calibration_text": text.source,
        "calibration_kept": "taken from the shelf" if shelved else "computed now",
        "folded_scales": len(chosen.folds),
        "errors": chosen.mean_errors(),
    }


def calibrated_effect(subject: Subject, switch: Grouped, method: str) -> Effect:
    """The receipt of a calibrated method: the live layers, the text, and the error that it found on it."""
    effect = grouped_effect(subject, switch, method)
    note = subject.notes.get(switch.kind, {})
    if not effect.took_effect:
        return effect
    for key in ("calibration_tokens", "calibration_text", "calibration_kept", "folded_scales"):
        effect.facts[key] = note.get(key)
    effect.facts["speed_and_bytes"] = "of int4 rounded to nearest: the same kernel, only quality moves"
    if errors := note.get("errors"):
        ours, nearest = errors
        effect.facts |= {"output_error": round(ours, 5), "output_error_to_nearest": round(nearest, 5)}
        effect.summary += f"; by {method}: layers' outputs off by {ours:.1%}, rounded to nearest {nearest:.1%}"
    head, unheard = head_name(subject.model), "nothing that is of use entered it on the text: rounded to nearest"
    for name, layer in subject.model.named_modules():
        if isinstance(layer, Int4Linear) and layer.method == NEAREST and name != head:
            effect.skipped.append(Skipped(name, unheard))
    return effect
