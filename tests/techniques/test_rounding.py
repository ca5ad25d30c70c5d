"""What a conversion makes of a matrix, in floats: that of the packed layers, and of torchao."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backend.techniques.quantize.groups import FOUR_BITS, Grid
from backend.techniques.quantize.int4_linear import Int4Linear, quantize_groups
from backend.techniques.rounding import by_groups, torchao_groups, torchao_rows


@pytest.mark.parametrize("grid", [FOUR_BITS, Grid(3), Grid(2), Grid(4, True), Grid(2, True)])
def test_rounded_weights_are_the_packed_ones(grid: Grid) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(96, 48, bias=False)
    with torch.no_grad():
        layer.weight[0, :32] = 0
        layer.weight[1, :32] = 0.3  # a group without a range
        layer.weight[2, 32:64] *= 1e-6
    rounded = by_groups(32, grid)(layer.weight)
    assert torch.equal(rounded, quantize_groups(layer.weight.detach(), 32, grid).weight())
    packed = Int4Linear(layer, 32, quantize_groups(layer.weight.detach(), 32, grid))
    with torch.inference_mode():
        assert torch.equal(packed.product(torch.eye(96)).float().T, rounded.bfloat16().float())


def test_torchaos_rounding_is_that_of_its_layers() -> None:
    """On CUDA the switches make torchao's layers; what quantizes their weights runs here too, packing apart."""
    from torchao.quantization.granularity import PerRow
    from torchao.quantization.quant_primitives import (
        MappingType,
        _choose_qparams_affine_tinygemm,
        _dequantize_affine_tinygemm,
        _quantize_affine_tinygemm,
    )
    from torchao.quantization.quantize_.workflows import Int8Tensor

    torch.manual_seed(0)
    weight = torch.randn(48, 128) * 0.05
    eights = Int8Tensor.from_hp(weight, PerRow())
    assert torch.allclose(torchao_rows(torch.float32)(weight), eights.dequantize(), atol=1e-7)
    low, block = weight.bfloat16(), (1, 32)
    scale, zero = _choose_qparams_affine_tinygemm(
        low, MappingType.ASYMMETRIC, block, torch.int32, 0, 15, scale_dtype=torch.bfloat16, zero_point_dtype=low.dtype
    )
    codes = _quantize_affine_tinygemm(low, block, scale, zero, torch.int32, 0, 15)
    back = _dequantize_affine_tinygemm(codes, block, scale, zero, torch.int32, 0, 15, output_dtype=torch.bfloat16)
    assert torch.equal(torchao_groups(32)(weight), back.float())
