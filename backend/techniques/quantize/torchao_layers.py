"""Weight-only layers of torchao, for CUDA."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from backend.recipe.base import RecipeError


def torchao_device(device: torch.device, kind: str) -> bool:
    """True on CUDA, where torchao's kernels are used; False on a CPU, where this project's layers are.

    Raises:
        RecipeError: on any other device.
    """
    if device.type not in ("cpu", "cuda"):
        raise RecipeError(f"switches.{kind}", device.type, "a CPU or a CUDA GPU", "Choose the device cpu, or cast.")
    return device.type == "cuda"


def int8_layer(layer: nn.Linear) -> nn.Linear:
    """The layer with an int8 weight of torchao, one symmetric scale per output channel."""
    with quiet_import():
        from torchao.quantization import Int8WeightOnlyConfig
    return _quantized(layer, Int8WeightOnlyConfig())


def int4_layer(layer: nn.Linear, group_size: int) -> nn.Module | str:
    """The bf16 layer with an int4 weight of torchao in tensor-core tiles, or the reason why there is none."""
    if layer.in_features % group_size:
        return f"{layer.in_features} inputs are no multiple of the group of {group_size}"
    with quiet_import():
        from torchao.quantization import Int4WeightOnlyConfig
    try:
        return _quantized(layer, Int4WeightOnlyConfig(group_size=group_size, int4_packing_format="tile_packed_to_4d"))
    except (ValueError, RuntimeError, AssertionError, ImportError) as error:  # a GPU older than compute 8.0, a width
        return f"torchao refuses it ({str(error).splitlines()[0][:120]})"


def fp8_layer(layer: nn.Linear) -> nn.Module | str:
    """The bf16 layer with e4m3 weights and activations of torchao, a scale per row, or the reason why there is none."""
    if layer.in_features % 16 or layer.out_features % 16:
        return f"{layer.out_features} x {layer.in_features}: the kernel wants multiples of 16"
    with quiet_import():
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow
    try:
        return _quantized(layer, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))
    except (ValueError, RuntimeError, AssertionError, ImportError) as error:
        return f"torchao refuses it ({str(error).splitlines()[0][:120]})"


def _quantized(layer: nn.Linear, config: Any) -> nn.Linear:
    """A new linear layer with a quantized weight; the old one, and whatever shares its weight, stay as they are."""
    from torchao.quantization import quantize_

    new = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    new.weight, new.bias = layer.weight, layer.bias
    holder = nn.Sequential(new)
    quantize_(holder, config)
    return holder[0]  # type: ignore[return-value]


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keep torchao's import from listing the GPU libraries that a CPU build lacks; real errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
