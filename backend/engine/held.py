"""What a live model holds, by class and format of its layers: numbers, bytes, and zeros that were counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear

from backend.techniques.quantize.census import FLOATS, layer_format
from backend.techniques.quantize.counting import float_name, held_tensors, layer_bytes
from backend.techniques.quantize.layers import is_linear
from backend.techniques.zeros import count_zeros, shown_weight


@dataclass
class Family:
    """Layers of one class and one format."""

    name: str  # the class as it calls itself: torch.ao's packed layers are classes called Linear, too
    format: str  # 'float32', 'int8', 'qint8', 'nf4', ...
    count: int = 0
    weights: int = 0  # numbers that it holds; what another layer holds already is not counted again
    bytes: int = 0  # storages really allocated, scales and biases included, each once
    looked_at: int = 0  # weights whose zeros could be counted
    zeros: int = 0
    packed: list[DynamicLinear] = field(default_factory=list)  # of torch.ao, whose memory no tensor shows

    def as_dict(self) -> dict[str, Any]:
        """Plain data; `sparsity` is None where the weights are packed and cannot be read."""
        return {
            "class": self.name,
            "format": self.format,
            "count": self.count,
            "weights": self.weights,
            "bytes": self.bytes,
            "sparsity": self.zeros / self.looked_at if self.looked_at else None,
        }


def families(model: nn.Module) -> list[Family]:
    """Every layer that holds weights of its own, in families, in the model's order."""
    found: dict[tuple[str, str], Family] = {}
    seen: set[tuple[str, int]] = set()  # storages that are counted already
    for module in model.modules():
        own = _storages(module)
        if not own and not isinstance(module, DynamicLinear):
            continue
        sort = module._get_name(), _format(module)
        family = found.setdefault(sort, Family(*sort))
        new = {place: tensor for place, tensor in own.items() if place not in seen}
        seen |= new.keys()
        _add(family, module, new, shared=bool(own) and not new)
    for family in found.values():
        family.bytes += layer_bytes(*family.packed)
    return list(found.values())


def _add(family: Family, module: nn.Module, new: dict[tuple[str, int], Tensor], shared: bool) -> None:
    family.count += 1
    family.bytes += sum(tensor.untyped_storage().nbytes() for tensor in new.values())
    if isinstance(module, DynamicLinear):
        family.packed.append(module)
    if shared:
        return
    if is_linear(module) and family.format not in FLOATS:
        family.weights += int(module.in_features) * int(module.out_features)  # type: ignore[arg-type]
        shown = shown_weight(module)
        matrices = [] if shown is None else [shown]
    else:
        matrices = [p.detach() for p in _own_parameters(module) if _place(p) in new]
        family.weights += sum(matrix.numel() for matrix in matrices)
    family.looked_at += sum(matrix.numel() for matrix in matrices)
    family.zeros += sum(count_zeros(matrix) for matrix in matrices)


def _storages(module: nn.Module) -> dict[tuple[str, int], Tensor]:
    """A module's own tensors, one for each storage."""
    return {_place(tensor): tensor for tensor in held_tensors(module)}


def _place(tensor: Tensor) -> tuple[str, int]:
    return str(tensor.device), tensor.untyped_storage().data_ptr()


def _own_parameters(module: nn.Module) -> Iterator[Tensor]:
    return (p for p in module._parameters.values() if p is not None and p.is_floating_point())


def _format(module: nn.Module) -> str:
    """What a layer's weights are made of; buffers alone, such as rotary frequencies, by their type."""
    if is_linear(module):
        return layer_format(module)
    tensors: list[Tensor] = [p for p in module._parameters.values() if p is not None]
    tensors += [b for b in module._buffers.values() if b is not None]
    return float_name(tensors[0].dtype) if tensors else "none"
