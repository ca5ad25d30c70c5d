"""int4, int8 or float by decoder layer."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.mixed import HEAD, SPLIT, Level, MixedPrecision, write_levels
from backend.techniques.anatomy import stack
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.census import FLOATS, layer_format, matrix_size, quantization_effect
from backend.techniques.quantize.counting import layer_bytes
from backend.techniques.quantize.floats import cast_weights
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.layers import linear_like
from backend.techniques.quantize.likely import likely_tokens
from backend.techniques.quantize.split_linear import SplitLinear
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.quantize.torchao_layers import int4_layer, int8_layer, torchao_device
from backend.techniques.quantize.units import linear_units
from backend.techniques.registry import technique

PACKED = ("int4", SPLIT, "int8")


@technique(MixedPrecision)
class MixedLevels:
    """The packed layers of int4 and int8 weights, chosen layer by layer: own kernels on a CPU, torchao's on CUDA.

    Layers are counted as they stand when it is applied, so after any that pruning dropped.
    """

    def apply(self, subject: Subject, switch: MixedPrecision) -> None:
        """Replace the linear layers of every unit that is not kept. On CUDA int4 makes the rest of the model bf16."""
        on_gpu = torchao_device(subject.device, switch.kind)
        asked = _asked(subject, switch)
        if on_gpu and "int4" in asked.values():
            cast_weights(subject.model, torch.bfloat16)  # the only type that the tiles multiply with
        units = linear_units(subject.model)
        likely = likely_tokens(subject, switch.likely) if SPLIT in asked.values() else None

        def build(name: str, layer: nn.Linear) -> nn.Module | str:
            level = asked.get(units[name])
            if level is None:
                return "in no decoder layer, and not the head"
            if level == "keep":
                return "kept, as asked"
            if level == SPLIT and likely is not None:
                return _split(layer, switch.split_group, likely)
            return _packed(layer, level, switch.group_size, on_gpu)

        swap_linears(subject, switch.kind, build)

    def read_back(self, subject: Subject, switch: MixedPrecision) -> Effect:
        """The level of every unit as it is in the live model, the bits that all of them hold, and what is not as asked.

        `bits_per_weight` counts every matrix of the units, kept ones with the bits of their floats, so that it can be
        held against the budget; the embedding's table is no part of it, even where a kept head reads it.
        """
        effect = quantization_effect(subject, switch.kind, lambda layer: layer_format(layer) in PACKED)
        layers, units = linear_like(subject.model), linear_units(subject.model)
        asked = switch.by_unit(len(stack(subject.model, switch.kind)))
        live = {name: _level(layer) for name, layer in layers.items() if units[name] in asked}
        right = Counter(live[name] for name in live if live[name] == asked[units[name]])
        wrong = [name for name in live if live[name] != asked[units[name]]]
        wanted = set(asked.values()) - {"keep"}
        by_unit = {unit: [name for name in live if units[name] == unit] for unit in asked if unit in units.values()}
        found = {unit: "+".join(sorted({live[name] for name in names})) for unit, names in by_unit.items()}
        bits = {unit: _bits([layers[name] for name in names]) for unit, names in by_unit.items()}
        effect.took_effect = bool(wanted) and all(right[level] for level in wanted)
        effect.facts |= {
            "levels": write_levels(found),
            "bits_by_unit": write_levels({unit: f"{value:.2f}" for unit, value in bits.items()}),
            "bits_per_weight": round(_bits([layers[name] for name in live]), 3),
            "matrices_not_as_asked": len(wrong),
        }
        if effect.took_effect:
            effect.summary = _summary(found, effect.facts["bits_per_weight"], len(wrong))
        return effect


def _asked(subject: Subject, switch: MixedPrecision) -> dict[str, Level]:
    """The level of every unit of the live model.

    Raises:
        RecipeError: for a layer that the model has not, or has no longer.
    """
    layers = len(stack(subject.model, switch.kind))
    if missing := switch.missing(layers):
        allowed = f"layers 0 to {layers - 1} and head: those that the model has after pruning"
        raise RecipeError(f"switches.{switch.kind}.levels", ", ".join(missing), allowed, "Remove these layers.")
    return switch.by_unit(layers)


def _packed(layer: nn.Linear, level: Level, group: int, on_gpu: bool) -> nn.Module | str:
    if level == "int8":
        return int8_layer(layer) if on_gpu else Int8Linear(layer)
    if layer.in_features < group:
        return _too_narrow(layer, group)
    return int4_layer(layer, group) if on_gpu else Int4Linear(layer, group)


def _split(layer: nn.Linear, group: int, likely: Tensor) -> nn.Module | str:
    return _too_narrow(layer, group) if layer.in_features < group else SplitLinear(layer, group, likely)


def _too_narrow(layer: nn.Linear, group: int) -> str:
    return f"{layer.in_features} inputs do not fill one group of {group}"


def _level(layer: nn.Module) -> str:
    """The level of one live layer, or the name of a format that no level asks for."""
    word = layer_format(layer)
    return "keep" if word in FLOATS else word


def _bits(layers: list[nn.Module]) -> float:
    """Bits per weight that the matrices of these layers hold, scales included."""
    numbers = sum(matrix_size(layer) for layer in layers)
    return 8 * layer_bytes(*layers, bias=False) / numbers if numbers else 0.0


def _summary(found: dict[str, str], bits: float, wrong: int) -> str:
    """'1 layer float, 3 layers int4, 14 layers int8, head int4, 5.94 bits per weight'."""
    said = {unit: word.replace("keep", "float") for unit, word in found.items()}
    counts = Counter(word for unit, word in said.items() if unit != HEAD)
    parts = [f"{count} layer{'s' if count > 1 else ''} {word}" for word, count in sorted(counts.items())]
    parts += [f"head {said[HEAD]}"] if HEAD in said else []
    parts += [f"{wrong} matrices not as asked"] if wrong else []
    return ", ".join([*parts, f"{bits:.2f} bits per weight"])
