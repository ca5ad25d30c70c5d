"""What a conversion makes of a model's matrices, in floats: the same numbers, nothing packed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from backend.recipe.grouped import Grouped
from backend.recipe.switches.four_bits import NarrowWeightOnly
from backend.recipe.switches.precision import Int4WeightOnly, Int8WeightOnly
from backend.techniques.quantize.groups import FOUR_BITS, Grid, blocks_of, ranges
from backend.techniques.quantize.int4_layers import stays
from backend.techniques.quantize.int4_linear import ROWS_AT_A_TIME
from backend.techniques.quantize.int8_linear import quantize_rows
from backend.techniques.quantize.layers import head_name, linear_like
from backend.techniques.quantize.torchao_layers import quiet_import

Rounding = Callable[[Tensor], Tensor]  # a matrix (N, K) as it is after its conversion, float32
Rounded = Int4WeightOnly | NarrowWeightOnly | Int8WeightOnly  # the switches whose layers can be told beforehand


def roundings(model: PreTrainedModel, switch: Rounded) -> dict[str, Rounding]:
    """How the switch would round each of the layers that it would replace, by their dotted names."""
    head = head_name(model)
    plain = {name: layer for name, layer in linear_like(model).items() if type(layer) is nn.Linear}
    return {
        name: _rounding(switch, name == head, layer.weight.device)
        for name, layer in plain.items()
        if not _left(switch, name, layer, head)
    }


def _left(switch: Rounded, name: str, layer: nn.Linear, head: str | None) -> bool:
    if isinstance(switch, Grouped):
        return stays(switch, name, layer, head) is not None
    return name == head and switch.head == "keep"


def _rounding(switch: Rounded, is_head: bool, device: torch.device) -> Rounding:
    on_gpu = device.type == "cuda"  # where the switches make torchao's layers
    if isinstance(switch, Int8WeightOnly):
        return torchao_rows(torch.float32) if on_gpu else by_rows
    if is_head and switch.head == "int8":
        return torchao_rows(torch.bfloat16) if on_gpu else by_rows
    if on_gpu:
        return torchao_groups(switch.group_size)
    if isinstance(switch, NarrowWeightOnly):
        return by_groups(switch.group_size, FOUR_BITS if is_head else Grid(switch.bits, switch.symmetric))
    return by_groups(switch.group_size, Grid(symmetric=switch.symmetric))


def by_groups(group_size: int, grid: Grid) -> Rounding:
    """That of the packed int4 layers: groups of inputs share a bf16 scale and zero."""

    def rounding(weight: Tensor) -> Tensor:
        rows, width = weight.shape
        rounded = torch.empty(rows, width, device=weight.device)
        step = max(1, ROWS_AT_A_TIME // width)
        for start in range(0, rows, step):
            blocks = blocks_of(weight[start : start + step], group_size)  # (n, G, g)
            nearest = grid.nearest(blocks, *ranges(blocks, grid))
            rounded[start : start + step] = nearest.flatten(1)[:, :width]
        return rounded

    return rounding


def by_rows(weight: Tensor) -> Tensor:
    """That of the packed int8 layers: one symmetric scale a row."""
    codes, scale = quantize_rows(weight.detach())  # (N, K) int8, (N,)
    return codes.float().mul_(scale[:, None]).to(weight.device)


def torchao_rows(dtype: torch.dtype) -> Rounding:
    """torchao's fake quantization of 8 bits, one symmetric scale a row; `dtype` is that of the converted model."""
    with quiet_import():
        from torchao.quantization.qat import FakeQuantizerBase, IntxFakeQuantizeConfig
    least = torch.finfo(torch.float32).eps  # of a scale, as its int8 tensors have it
    eights = FakeQuantizerBase.from_config(
        IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True, eps=least)
    )
    return lambda weight: eights(weight.to(dtype).float())


def torchao_groups(group_size: int) -> Rounding:
    """torchao's fake quantization of 4 bits in groups, for its tensor-core tiles: weight, scale and zero in bf16."""
    with quiet_import():
        from torchao.quantization.qat import FakeQuantizerBase, IntxFakeQuantizeConfig
        from torchao.quantization.quant_primitives import ZeroPointDomain
    fours = FakeQuantizerBase.from_config(
        IntxFakeQuantizeConfig(
            torch.uint4,  # type: ignore[attr-defined]
            group_size=group_size,
            is_symmetric=False,
            scale_precision=torch.bfloat16,
            zero_point_precision=torch.bfloat16,
            zero_point_domain=ZeroPointDomain.FLOAT,
        )
    )
    return lambda weight: fours(weight.bfloat16()).float()


def int8_tokens() -> nn.Module:
    """torchao's rounding of activations in 8da4w: 8 bits, asymmetric, a range a token."""
    with quiet_import():
        from torchao.quantization.qat import FakeQuantizerBase, IntxFakeQuantizeConfig
    return FakeQuantizerBase.from_config(IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False))
