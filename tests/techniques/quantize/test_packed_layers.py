"""The packed int8 and int4 layers against arithmetic done by hand and against dequantized products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from backend.techniques.quantize.int4_linear import Int4Linear, quantize_groups
from backend.techniques.quantize.int8_linear import PACKED_ROWS, Int8Linear, quantize_rows


def linear(width_in: int, width_out: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(width_in + width_out)
    return nn.Linear(width_in, width_out, bias=bias)


def int8_weight(layer: Int8Linear) -> Tensor:
    return layer.packed[:, : layer.in_features].float() * layer.scale[:, None]


def unpacked_groups(codes: Tensor, scales_and_zeros: Tensor) -> Tensor:
    scale, zero = scales_and_zeros.float().transpose(0, 1).unbind(dim=2)  # (N, G) each
    parts = (codes.view(*scale.shape, -1).float() - 8) * scale[..., None] + zero[..., None]
    return parts.reshape(codes.shape)


def off(got: Tensor, want: Tensor) -> float:
    return ((got - want).norm() / want.norm()).item()


def test_int8_rounds_a_2x4_weight_as_by_hand() -> None:
    weight = torch.tensor([[1.27, -0.64, 0.0, 0.014], [0.0, 0.0, 0.0, 0.0]])
    codes, scale = quantize_rows(weight)
    assert codes.tolist() == [[127, -64, 0, 1], [0, 0, 0, 0]]
    assert scale.tolist() == pytest.approx([0.01, 1.0])


def test_int8_layer_multiplies_the_2x4_weight_as_by_hand() -> None:
    float_layer = nn.Linear(4, 2)
    with torch.no_grad():
        float_layer.weight.copy_(torch.tensor([[1.27, -0.64, 0.0, 0.01], [2.54, 0.0, -2.54, 0.0]]))
        float_layer.bias.copy_(torch.tensor([1.0, -1.0]))
        got = Int8Linear(float_layer)(torch.tensor([[1.0, 2.0, 0.5, 0.0]]))
    # 1.27 - 1.28 + 1 and 2.54 - 1.27 - 1
    assert got.tolist()[0] == pytest.approx([0.99, 0.27], abs=1e-3)


@pytest.mark.parametrize("rows", [1, PACKED_ROWS, PACKED_ROWS + 1, 70])
@pytest.mark.parametrize("shape", [(64, 96), (31, 7), (1843, 40), (16, 2)])
def test_int8_layer_equals_the_dequantized_product(rows: int, shape: tuple[int, int]) -> None:
    layer = Int8Linear(linear(*shape, bias=True))
    x = torch.randn(rows, shape[0])
    want = x @ int8_weight(layer).T + layer.bias
    # Few rows go through bf16, more rows through fp32: the tolerance tells the two apart.
    assert off(layer(x), want) < (5e-3 if rows <= PACKED_ROWS else 1e-5)


def test_int8_rows_do_not_depend_on_how_many_stand_beside_them() -> None:
    layer = Int8Linear(linear(96, 64))
    x = torch.randn(PACKED_ROWS, 96)
    together = layer(x)
    for width in (1, 3, 5):
        alone = torch.cat([layer(x[i : i + width]) for i in range(0, PACKED_ROWS, width)])
        assert torch.equal(alone, together)


def test_int4_round_trip_of_one_group_of_32_as_by_hand() -> None:
    weight = torch.arange(32).float().div(2).floor().view(1, 32)  # 0, 0, 1, 1 ... 15, 15: sixteen levels exactly
    codes, scales_and_zeros = quantize_groups(weight, 32)
    assert codes.tolist()[0] == [i // 2 for i in range(32)]
    assert scales_and_zeros.float().tolist() == [[[1.0, 8.0]]]  # (code - 8) * 1 + 8
    assert torch.equal(unpacked_groups(codes, scales_and_zeros), weight)


def test_int4_errs_by_half_a_step_and_the_rounding_of_its_scales() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    codes, scales_and_zeros = quantize_groups(weight, 32)
    step = (weight.view(8, 2, 32).amax(2) - weight.view(8, 2, 32).amin(2)) / 15
    worst = (unpacked_groups(codes, scales_and_zeros) - weight).abs().view(8, 2, 32).amax(2)
    assert (worst <= 0.55 * step + 2**-7 * weight.abs().max()).all()
    assert int(codes.min()) == 0
    assert int(codes.max()) == 15


def test_int4_keeps_a_group_of_equal_weights() -> None:
    codes, scales_and_zeros = quantize_groups(torch.full((1, 32), 0.5), 32)
    assert torch.equal(unpacked_groups(codes, scales_and_zeros), torch.full((1, 32), 0.5))


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("rows", [1, 40])
def test_int4_layer_equals_the_dequantized_product(group_size: int, rows: int) -> None:
    float_layer = linear(256, 48, bias=True)
    layer = Int4Linear(float_layer, group_size)
    weight = unpacked_groups(*quantize_groups(float_layer.weight.detach(), group_size))
    x = torch.randn(rows, 256)
    assert off(layer(x), x @ weight.T + layer.bias) < 6e-3
    assert layer.scales_and_zeros.shape == (256 // group_size, 48, 2)


@pytest.mark.parametrize("shape", [(64, 7), (50, 48), (97, 33)])
def test_int4_pads_widths_that_do_not_fit(shape: tuple[int, int]) -> None:
    float_layer = linear(*shape)
    layer = Int4Linear(float_layer, 32)
    x = torch.randn(2, 3, shape[0])
    got = layer(x)
    assert got.shape == (2, 3, shape[1])
    assert off(got, float_layer(x)) < 0.15


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_have_the_type_of_the_input(dtype: torch.dtype) -> None:
    float_layer = linear(64, 32)
    x = torch.randn(2, 64, dtype=dtype)
    assert Int8Linear(float_layer)(x).dtype == dtype
    assert Int4Linear(float_layer, 32)(x).dtype == dtype


def test_no_rows_give_no_rows() -> None:
    assert Int8Linear(linear(64, 32))(torch.zeros(1, 0, 64)).shape == (1, 0, 32)
