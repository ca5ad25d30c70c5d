"""int8 weights, float activations."""

from __future__ import annotations

from torch import nn

from backend.recipe.switches.precision import Int8WeightOnly
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.census import layer_format, quantization_effect
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.layers import head_name
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.quantize.torchao_layers import int8_layer, torchao_device
from backend.techniques.registry import technique


@technique(Int8WeightOnly)
class Int8Weights:
    """Own packed layers on a CPU; torchao's on CUDA (on a CPU torchao makes float weights again at every call)."""

    def apply(self, subject: Subject, switch: Int8WeightOnly) -> None:
        """Replace every linear layer, the output head unless it is to be kept."""
        on_gpu = torchao_device(subject.device, switch.kind)
        kept = head_name(subject.model) if switch.head == "keep" else None

        def build(name: str, layer: nn.Linear) -> nn.Module | str:
            if name == kept:
                return "the output head is kept, as asked"
            return int8_layer(layer) if on_gpu else Int8Linear(layer)

        swap_linears(subject, switch.kind, build)

    def read_back(self, subject: Subject, switch: Int8WeightOnly) -> Effect:
        """Count the int8 matrices in the live model."""
        return quantization_effect(subject, switch.kind, lambda layer: layer_format(layer) == "int8")
