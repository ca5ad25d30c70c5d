"""Counting the bytes that a model's weights really hold, each storage once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear


def weight_bytes(model: nn.Module) -> int:
    """Bytes held by parameters, buffers and packed weights; a storage that several share counts once."""
    return _bytes(model.modules())


def layer_bytes(*layers: nn.Module, bias: bool = True) -> int:
    """Bytes that layers hold, scales and zero points included, their biases on demand."""
    total = _bytes(module for layer in layers for module in layer.modules())
    return total if bias else total - sum(_bias_bytes(layer) for layer in layers)


def _bytes(modules: Iterable[nn.Module]) -> int:
    storages: dict[tuple[str, int], int] = {}
    packed: list[DynamicLinear] = []
    opaque = 0  # behind weights that no tensor shows
    for module in modules:
        opaque += getattr(module, "packed_bytes", 0)
        if isinstance(module, DynamicLinear):
            packed.append(module)
        for tensor in held_tensors(module):
            storage = tensor.untyped_storage()
            storages[(str(tensor.device), storage.data_ptr())] = storage.nbytes()
    return sum(storages.values()) + opaque + _packed_bytes(packed)


def held_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Plain tensors of one module: its own, those inside tensor subclasses, and what bitsandbytes keeps beside them."""
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None:
            yield from _plain(tensor)
            yield from _quant_state(getattr(tensor, "quant_state", None))
            yield from _lt_state(tensor)
    yield from _lt_state(getattr(module, "state", None))  # bitsandbytes' MatmulLtState
    yield from _quant_state(getattr(module, "quant_state", None))


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that a tensor subclass (torchao) is made of, or the tensor itself."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
    else:
        yield tensor


def _quant_state(state: Any) -> Iterator[Tensor]:
    """Scales of a 4-bit weight, and the second level of scales where there is one. The codebook counts too."""
    if state is None or isinstance(state, Tensor):
        return
    for name in ("absmax", "code", "offset"):
        value = getattr(state, name, None)
        if isinstance(value, Tensor):
            yield value
    yield from _quant_state(getattr(state, "state2", None))


def _lt_state(holder: Any) -> Iterator[Tensor]:
    """The int8 matrix and its row scales, which bitsandbytes moves from the weight to the layer's state."""
    for name in ("CB", "SCB"):
        value = getattr(holder, name, None)
        if isinstance(value, Tensor):
            yield value


def smallest_packed(layers: Iterable[nn.Module]) -> DynamicLinear | None:
    """The packed layer of torch.ao that is quickest to unpack: fbgemm takes .1 s for a million weights."""
    packed = [layer for layer in layers if isinstance(layer, DynamicLinear)]
    return min(packed, key=lambda layer: layer.in_features * layer.out_features, default=None)


def _packed_bytes(layers: list[DynamicLinear]) -> int:
    """Bytes of packed weights of torch.ao, which no tensor shows.

    A fbgemm matrix holds one byte a weight, a sum (int32) per output channel, and scales (float32) with zero points
    (int32). onednn keeps the matrix as it was beside the packed one: twice. Which of the two it is shows when
    unpacking gives the same memory twice; the smallest layer answers for all.
    """
    smallest = smallest_packed(layers)
    if smallest is None:
        return 0
    weight = smallest.weight()
    matrices = 2 if smallest.weight().data_ptr() == weight.data_ptr() else 1
    per_channel = weight.qscheme() == torch.per_channel_affine
    total = 0
    for layer in layers:
        total += matrices * layer.in_features * layer.out_features
        total += 4 * layer.out_features + 8 * (layer.out_features if per_channel else 1) + _bias_bytes(layer)
    return total


def _bias_bytes(layer: nn.Module) -> int:
    if isinstance(layer, DynamicLinear):
        known = getattr(layer, "has_bias", None)  # noted when it was packed; else it must be unpacked
        return 4 * layer.out_features if (known if known is not None else layer.bias() is not None) else 0
    bias = getattr(layer, "bias", None)
    return bias.numel() * bias.element_size() if isinstance(bias, Tensor) else 0


def float_name(dtype: torch.dtype) -> str:
    """'float32' for torch.float32."""
    return str(dtype).removeprefix("torch.")
