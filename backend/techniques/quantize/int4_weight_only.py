"""int4 weights in groups, float activations."""

from __future__ import annotations

import torch
from torch import nn

from backend.recipe.switches.precision import Int4WeightOnly
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.census import layer_format, quantization_effect
from backend.techniques.quantize.floats import cast_weights
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.layers import head_name
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.quantize.torchao_layers import int4_layer, int8_layer, torchao_device
from backend.techniques.registry import technique


@technique(Int4WeightOnly)
class Int4Weights:
    """Round to nearest in groups: own packed layers on a CPU, torchao's tensor-core tiles on CUDA."""

    def apply(self, subject: Subject, switch: Int4WeightOnly) -> None:
        """Replace every linear layer; the head as the switch says. On CUDA the rest of the model becomes bf16."""
        on_gpu = torchao_device(subject.device, switch.kind)
        if on_gpu:
            cast_weights(subject.model, torch.bfloat16)  # the only type that the tiles multiply with
        head = head_name(subject.model)

        def build(name: str, layer: nn.Linear) -> nn.Module | str:
            if name == head and switch.head == "keep":
                return "the output head is kept, as asked"
            if name == head and switch.head == "int8":
                return int8_layer(layer) if on_gpu else Int8Linear(layer)
            if layer.in_features < switch.group_size:
                return f"{layer.in_features} inputs do not fill one group of {switch.group_size}"
            return int4_layer(layer, switch.group_size) if on_gpu else Int4Linear(layer, switch.group_size)

        swap_linears(subject, switch.kind, build)

    def read_back(self, subject: Subject, switch: Int4WeightOnly) -> Effect:
        """Count the int4 matrices in the live model, and those whose width was padded."""
        effect = quantization_effect(subject, switch.kind, lambda layer: layer_format(layer) == "int4")
        own = [layer for layer in subject.model.modules() if isinstance(layer, Int4Linear)]
        effect.took_effect = effect.took_effect and all(layer.group_size == switch.group_size for layer in own)
        effect.facts["group_size"] = ", ".join(sorted({str(layer.group_size) for layer in own})) or None
        effect.facts["layers_with_padded_inputs"] = sum(layer.padding > 0 for layer in own)
        return effect
