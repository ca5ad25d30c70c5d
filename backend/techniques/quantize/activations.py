"""What the techniques with 8-bit activations share: ranges heard on text, layers packed, and their receipt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.calibrated import Calibrated
from backend.techniques.base import CalibrationText, Effect, Subject
from backend.techniques.calibrate import hear_inputs
from backend.techniques.quantize.census import layer_format, quantization_effect
from backend.techniques.quantize.floats import cast_weights
from backend.techniques.quantize.observers import Observer, fixed_range
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.quantize.w8a8_kernels import KERNELS, any_runs, pick
from backend.techniques.quantize.w8a8_linear import W8A8Linear

CONSTANT = "what enters it never changed on the calibration text, so its range is unknown"


def ready(subject: Subject, kind: str) -> None:
    """Make the weights fp32, which the kernels take, and refuse those that are no numbers.

    Raises:
        RecipeError: on another device than a CPU, on one without the kernels, or where a weight is NaN or infinite.
    """
    if subject.device.type != "cpu":
        raise RecipeError(f"switches.{kind}", subject.device.type, "a CPU", "Choose weight-only int8 instead.")
    if not any_runs():
        known = " or ".join(KERNELS)
        raise RecipeError(f"switches.{kind}", "on", f"a torch with {known}", "Choose weight-only int8 instead.")
    cast_weights(subject.model, torch.float32)
    for name, layer in subject.linears().items():
        if not bool(torch.isfinite(layer.weight.sum())):
            raise RecipeError(f"switches.{kind}", f"{name} holds NaN or infinity", "finite weights", "Load it anew.")


def observed_ranges(subject: Subject, text: CalibrationText, rule: str, outside: float = 0.0) -> dict[str, Tensor]:
    """For every linear layer the lowest and highest number (2,) that must fit; see `Observer.range`."""
    observers: dict[str, Observer] = defaultdict(Observer)
    hear_inputs(subject, text, subject.linears(), lambda name, layer, rows: observers[name].hear(rows))
    ranges = {}
    for done, (name, observer) in enumerate(observers.items()):
        subject.progress(done / len(observers), f"Choosing the range of {name}")
        ranges[name] = torch.tensor(observer.range(rule, outside))
    return ranges


def pack(subject: Subject, kind: str, ranges: Mapping[str, Tensor] | None) -> None:
    """Replace every linear layer, the head too; with ranges the activation scales are fixed, else found a token."""
    kernel = pick("onednn" if subject.facts.task == "encoder" else "fbgemm")  # an encoder knows no short calls

    def build(name: str, layer: nn.Linear) -> nn.Module | str:
        if ranges is None:
            return W8A8Linear(layer, kernel=kernel)
        if name not in ranges:
            return "the calibration text never reached it"
        low, high = ranges[name].tolist()
        return W8A8Linear(layer, fixed_range(low, high), kernel) if low < high else CONSTANT

    swap_linears(subject, kind, build)


def note_text(subject: Subject, switch: Calibrated, text: CalibrationText, found: bool) -> None:
    """Keep for the receipt on what was calibrated."""
    told = {"text": text.source, "tokens": len(text.ids), "from": "an earlier run" if found else "this run"}
    subject.notes[switch.kind] |= {"calibration": told}


def w8a8_effect(subject: Subject, kind: str, static: bool) -> Effect:
    """Count the layers that multiply int8 by int8, and say how their activation scales come about."""
    effect = quantization_effect(subject, kind, lambda layer: layer_format(layer) == "w8a8")
    own = [layer for layer in subject.model.modules() if isinstance(layer, W8A8Linear)]
    ways = Counter("one a layer, fixed" if layer.static else "one a token" for layer in own)
    effect.took_effect = effect.took_effect and all((layer.static is not None) == static for layer in own)
    effect.facts["activation_scales"] = ", ".join(f"{way} x {count}" for way, count in ways.items()) or None
    effect.facts["weight_scales"] = "one per output channel"
    effect.facts["kernel"] = ", ".join(sorted({layer.kernel.name for layer in own})) or None
    told: dict[str, Any] = subject.notes.get(kind, {}).get("calibration", {})
    effect.facts |= {f"calibration_{name}": value for name, value in told.items()}
    return effect
