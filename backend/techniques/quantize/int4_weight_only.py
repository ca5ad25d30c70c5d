"""int4 weights in groups, float activations."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from backend.recipe.switches.precision import Int4WeightOnly
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.floats import cast_weights
from backend.techniques.quantize.groups import Grid, Groups
from backend.techniques.quantize.int4_layers import Choose, grouped_effect, pack_chosen, stays
from backend.techniques.quantize.int4_linear import NEAREST, Int4Linear, quantize_groups
from backend.techniques.quantize.layers import head_name
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.quantize.torchao_layers import int4_layer, int8_layer, torchao_device
from backend.techniques.registry import technique


@technique(Int4WeightOnly)
class Int4Weights:
    """Round to nearest in groups: own packed layers on a CPU, torchao's tensor-core tiles on CUDA."""

    def apply(self, subject: Subject, switch: Int4WeightOnly) -> None:
        """Replace every linear layer; the head as the switch says. On CUDA the rest of the model becomes bf16."""
        if torchao_device(subject.device, switch.kind):
            _apply_on_gpu(subject, switch)
        else:
            pack_chosen(subject, switch, nearest(switch.group_size, Grid(symmetric=switch.symmetric)), NEAREST)

    def read_back(self, subject: Subject, switch: Int4WeightOnly) -> Effect:
        """Count the int4 matrices in the live model; symmetric ones have no zeros but 0."""
        effect = grouped_effect(subject, switch)
        zeros = [layer.scales_and_zeros[..., 1] for layer in subject.model.modules() if isinstance(layer, Int4Linear)]
        symmetric = sum(not zero.any() for zero in zeros)
        effect.facts["symmetric_layers"] = symmetric
        effect.took_effect = effect.took_effect and (not switch.symmetric or symmetric == len(zeros))
        return effect


def nearest(group_size: int, grid: Grid) -> Choose:
    """Rounds a layer to the nearest codes of a grid."""

    def choose(name: str, layer: nn.Linear) -> Groups:
        return quantize_groups(F.pad(layer.weight.detach(), (0, -layer.in_features % group_size)), group_size, grid)

    return choose


def _apply_on_gpu(subject: Subject, switch: Int4WeightOnly) -> None:
    cast_weights(subject.model, torch.bfloat16)  # the only type that the tiles multiply with
    head = head_name(subject.model)

    def build(name: str, layer: nn.Linear) -> nn.Module | str:
        if reason := stays(switch, name, layer, head):
            return reason
        return int8_layer(layer) if name == head and switch.head == "int8" else int4_layer(layer, switch.group_size)

    swap_linears(subject, switch.kind, build)
