"""Experts in fewer bits than the rest of the model."""

from __future__ import annotations

from torch import nn

from backend.recipe.switches.experts import QuantizeExperts
from backend.techniques.base import Effect, Subject
from backend.techniques.expertlayers import expert_layers
from backend.techniques.quantize.census import layer_format, quantization_effect
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.quantize.torchao_layers import int8_layer, torchao_device
from backend.techniques.registry import technique

KEPT = "no expert, kept as asked"


@technique(QuantizeExperts)
class ExpertBits:
    """The packed layers of int4 and int8 weights, for the experts; the rest kept, or in int8."""

    def apply(self, subject: Subject, switch: QuantizeExperts) -> None:
        """Replace the experts' layers, and the others where that is asked.

        Raises:
            RecipeError: when no layer could be replaced.
        """
        on_gpu = torchao_device(subject.device, switch.kind)
        inside = tuple(f"{name}." for name in expert_layers(subject.model))

        def build(name: str, layer: nn.Linear) -> nn.Module | str:
            level = switch.level if name.startswith(inside) else switch.rest
            if level == "keep":
                return KEPT
            if level == "int8":
                return int8_layer(layer) if on_gpu else Int8Linear(layer)
            return Int4Linear(layer, switch.group_size)

        swap_linears(subject, switch.kind, build)

    def read_back(self, subject: Subject, switch: QuantizeExperts) -> Effect:
        """Count the live experts of that level, and bytes of experts and rest."""
        effect = quantization_effect(subject, switch.kind, lambda layer: layer_format(layer) in ("int4", "int8"))
        linears = [
            layer for experts in expert_layers(subject.model).values() for layer in experts.modules()
            if hasattr(layer, "in_features")
        ]  # fmt: skip
        done = sum(layer_format(layer) == switch.level for layer in linears)
        effect.took_effect = bool(linears) and done == len(linears)
        effect.facts |= {"expert_matrices": len(linears), f"expert_matrices_{switch.level}": done}
        if effect.took_effect:
            effect.summary = f"{done} matrices of experts {switch.level}; {effect.summary}"
        return effect
