"""Which part of the model every module belongs to, and the bytes that each part's weights hold."""

from __future__ import annotations

from torch import nn

from backend.engine.partclock import places
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.quantize.counting import layer_bytes, weight_bytes
from backend.techniques.quantize.layers import is_linear


def part_names(subject: Subject) -> dict[str, str]:
    """The part of every module by its dotted name; a module without a part of its own has that of the one around it."""
    begun = {id(module): place.part for module, place in places(subject)}
    parts: dict[str, str] = {}
    for name, module in subject.model.named_modules():
        around = parts.get(name.rpartition(".")[0], "python")
        parts[name] = begun.get(id(module), around)
    return parts


def layer_numbers(subject: Subject) -> dict[str, int]:
    """The decoder layer of every module that lies in one, by its dotted name; empty for an unknown build."""
    try:
        layers = {id(layer): number for number, layer in enumerate(decoder_layers(subject.model))}
    except TypeError:
        return {}
    numbers: dict[str, int] = {}
    for name, module in subject.model.named_modules():
        around = numbers.get(name.rpartition(".")[0])
        number = layers.get(id(module), around)
        if number is not None:
            numbers[name] = number
    return numbers


def weights_by_part(subject: Subject) -> dict[str, int]:
    """Bytes that each part's weights hold; a storage that two parts share counts for the first, the embedding.

    The values sum to `weight_bytes` of the model; what belongs to no part is 'other'.
    """
    parts = part_names(subject)
    groups: dict[str, list[nn.Module]] = {}
    for name, module in subject.model.named_modules():
        if is_linear(module) or not list(module.children()):
            groups.setdefault(parts[name], []).append(module)
    order = sorted(groups, key=lambda part: (part != "embed", part))
    held: dict[str, int] = {}
    before: list[nn.Module] = []
    counted = 0
    for part in order:
        before += groups[part]
        total = layer_bytes(*before)
        held[part], counted = total - counted, total
    held["other"] = weight_bytes(subject.model) - counted
    return {part: count for part, count in held.items() if count > 0}
