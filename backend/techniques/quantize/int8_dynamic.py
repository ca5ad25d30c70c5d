"""Dynamic int8: weights int8 ahead of time, activations int8 with one scale a call or a token."""

from __future__ import annotations

import torch
from torch import nn
from torch.ao.quantization import default_dynamic_qconfig, per_channel_dynamic_qconfig, quantize_dynamic

from backend.recipe.base import RecipeError
from backend.recipe.switches.precision import Int8Dynamic
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.activations import pack, ready, w8a8_effect
from backend.techniques.quantize.census import layer_format, quantization_effect
from backend.techniques.quantize.counting import smallest_packed
from backend.techniques.quantize.floats import cast_weights
from backend.techniques.quantize.qengine import ENGINES, best_engine, deprecation_unsaid, packing_for
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.registry import technique


@technique(Int8Dynamic)
class Int8DynamicLayers:
    """`torch.ao.quantization.quantize_dynamic`, layer by layer; with a scale a token, the layers of w8a8_linear.py.

    The API is deprecated in favour of torchao. It is used because it is the fastest 8 bit that a CPU runs without a
    compiler: 34 tokens/s where fp32 made 14 and torchao's int8 layers 5 to 9 (386M parameters, 2 threads).
    """

    def apply(self, subject: Subject, switch: Int8Dynamic) -> None:
        """Replace every linear layer, the output head too."""
        if subject.device.type != "cpu":
            raise RecipeError("switches.int8_dynamic", subject.device.type, "a CPU", "Choose weight-only int8 instead.")
        if switch.scale == "token":
            ready(subject, switch.kind)
            pack(subject, switch.kind, None)
            return
        engine = best_engine()
        if engine is None:
            raise RecipeError(
                "switches.int8_dynamic", "on", f"a torch with one of {ENGINES}", "Choose weight-only int8."
            )
        cast_weights(subject.model, torch.float32)  # its kernels take float32 activations only
        qconfig = per_channel_dynamic_qconfig if switch.per_channel else default_dynamic_qconfig

        def build(name: str, layer: nn.Linear) -> nn.Module:
            holder = nn.Sequential(layer)
            new = quantize_dynamic(holder, {nn.Linear: qconfig}, dtype=torch.qint8, inplace=True)[0]
            new.has_bias = layer.bias is not None  # so that counting bytes need not unpack it
            return new

        with packing_for(engine), deprecation_unsaid():
            swap_linears(subject, switch.kind, build)
        subject.notes[switch.kind]["engine"] = engine

    def read_back(self, subject: Subject, switch: Int8Dynamic) -> Effect:
        """Count the packed layers and ask one for its scales."""
        if switch.scale == "token":
            return w8a8_effect(subject, switch.kind, static=False)
        effect = quantization_effect(subject, switch.kind, lambda layer: layer_format(layer) == "qint8")
        packed = smallest_packed(subject.model.modules())
        if packed is not None:
            per_channel = packed.weight().qscheme() == torch.per_channel_affine
            effect.took_effect = effect.took_effect and per_channel == switch.per_channel
            effect.facts["weight_scales"] = "one per output channel" if per_channel else "one per matrix"
            effect.facts["engine"] = subject.notes.get(switch.kind, {}).get("engine")
        return effect
