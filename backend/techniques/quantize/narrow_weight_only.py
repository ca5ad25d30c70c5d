"""3 or 2 bits a weight by their levels, in the layout of 4."""

from __future__ import annotations

import torch
from torch import nn

from backend.recipe.switches.four_bits import NarrowWeightOnly
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.groups import FOUR_BITS, Grid, Groups
from backend.techniques.quantize.int4_layers import grouped_effect, pack_chosen
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int4_weight_only import nearest
from backend.techniques.quantize.layers import head_name
from backend.techniques.registry import technique


@technique(NarrowWeightOnly)
class NarrowWeights:
    """Round to the nearest of fewer levels. torch has no CPU kernel below 4 bits, so these run on the int4 one.

    The quality is that of 3 or 2 bits; what is read and held is int4.
    """

    def apply(self, subject: Subject, switch: NarrowWeightOnly) -> None:
        """Replace every linear layer; the head as the switch says."""
        head, grid = head_name(subject.model), Grid(switch.bits, switch.symmetric)
        narrow, full = nearest(switch.group_size, grid), nearest(switch.group_size, FOUR_BITS)

        def choose(name: str, layer: nn.Linear) -> Groups | None:
            return (full if name == head else narrow)(name, layer)

        pack_chosen(subject, switch, choose, _method(switch))

    def read_back(self, subject: Subject, switch: NarrowWeightOnly) -> Effect:
        """Count the layers, and the levels that the live weights really take."""
        effect = grouped_effect(subject, switch, _method(switch))
        head = head_name(subject.model)
        found = {name: m for name, m in subject.model.named_modules() if isinstance(m, Int4Linear) and name != head}
        levels = max((levels_of(layer) for layer in found.values()), default=0)
        effect.facts["levels_of_a_weight"] = levels
        effect.facts["speed_and_bytes"] = "of int4: its layout and kernel hold the fewer levels"
        effect.took_effect = effect.took_effect and 0 < levels <= (1 << switch.bits)
        if effect.took_effect:
            effect.summary += f"; {levels} levels a weight as in {switch.bits} bits, speed and bytes of int4"
        return effect


def _method(switch: NarrowWeightOnly) -> str:
    return f"{switch.bits} bits, round to nearest"


@torch.inference_mode()
def levels_of(layer: Int4Linear) -> int:
    """Most values that the weights of a packed layer take in one group, read through its kernel: its first group."""
    probe = torch.eye(min(layer.group_size, layer.in_features), layer.in_features, device=layer.packed.device)
    weights = layer.product(probe)  # (g, N): the weights of the first group
    ordered = weights.sort(dim=0).values
    return int(((ordered[1:] != ordered[:-1]).sum(dim=0) + 1).max())
