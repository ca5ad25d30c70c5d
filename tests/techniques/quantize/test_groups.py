"""The int4 kernel's numbers: fewer levels, exact zeros, and ranges that were searched."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backend.techniques.quantize.gptq_rounding import diagonal_blocks
from backend.techniques.quantize.groups import FOUR_BITS, Grid, as_groups, blocks_of, ranges, searched_ranges
from backend.techniques.quantize.int4_linear import quantize_groups

GRIDS = [Grid(bits, symmetric) for bits in (2, 3, 4) for symmetric in (False, True)]


def weights(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_two_symmetric_bits_are_minus_one_zero_and_one_as_by_hand() -> None:
    weight = torch.tensor([[-2.0, -0.9, 0.4, 1.6] * 8])
    groups = quantize_groups(weight, 32, Grid(2, symmetric=True))
    assert groups.scales_and_zeros.float().tolist() == [[[2.0, 0.0]]]
    assert groups.codes[0, :4].tolist() == [7, 8, 8, 9]
    assert groups.weight()[0, :4].tolist() == [-2.0, 0.0, 0.0, 2.0]


def test_two_asymmetric_bits_are_four_even_levels_as_by_hand() -> None:
    groups = quantize_groups(torch.tensor([[0.0, 1.0, 2.0, 3.0] * 8]), 32, Grid(2))
    assert groups.codes[0, :4].tolist() == [6, 7, 8, 9]
    assert groups.weight()[0, :4].tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("grid", GRIDS)
def test_no_group_uses_more_levels_than_its_bits_have(grid: Grid) -> None:
    groups = quantize_groups(weights(16, 256), 64, grid)
    used = {len(row.unique()) for row in groups.codes.view(-1, 64)}
    assert max(used) == grid.last - grid.first + 1 == (1 << grid.bits) - grid.symmetric
    assert not grid.symmetric or not groups.scales_and_zeros[..., 1].any()


@given(st.integers(0, 1000), st.sampled_from(GRIDS), st.floats(1e-3, 1e3))
def test_a_weight_is_off_by_half_a_step_and_the_rounding_of_its_zero(seed: int, grid: Grid, size: float) -> None:
    weight = weights(4, 64, seed) * size
    groups = quantize_groups(weight, 32, grid)
    scale = groups.scales_and_zeros[..., 0].float().T.repeat_interleave(32, dim=1)  # (N, K)
    slack = 2**-7 * weight.abs().max() + scale * 2**-5  # bf16 keeps 8 bits of scale and zero
    assert ((groups.weight() - weight).abs() <= scale / 2 + slack).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_zero_and_equal_weights_stay_what_they_are(grid: Grid) -> None:
    assert not quantize_groups(torch.zeros(2, 64), 32, grid).weight().any()
    equal = quantize_groups(torch.full((2, 64), 0.5), 32, grid).weight()
    assert torch.allclose(equal, torch.full((2, 64), 0.5), rtol=0.01)


def test_searched_ranges_err_less_and_never_more_than_whole_ones() -> None:
    weight, inputs = weights(32, 128), weights(400, 128, 1)
    weight[:, 5] *= 6  # far out, so that it stretches its group's range, and of little weight in what is written
    inputs[:, 5] *= 0.01
    blocks = blocks_of(weight, 32)
    inner = diagonal_blocks(inputs.T @ inputs, 32)

    def errors(scale: Tensor, zero: Tensor) -> Tensor:
        off = FOUR_BITS.nearest(blocks, scale, zero) - blocks
        return torch.einsum("ngi,gij,ngj->ng", off, inner, off)

    whole, searched = errors(*ranges(blocks, FOUR_BITS)), errors(*searched_ranges(blocks, FOUR_BITS, inner))
    assert (searched <= whole * 1.0001).all()
    assert searched.sum() < 0.9 * whole.sum()


def test_blocks_on_the_diagonal_are_those_of_the_matrix() -> None:
    matrix = torch.arange(36.0).view(6, 6)
    assert torch.equal(diagonal_blocks(matrix, 2), torch.stack([matrix[i : i + 2, i : i + 2] for i in (0, 2, 4)]))


def test_groups_give_back_what_was_put_in() -> None:
    blocks = blocks_of(weights(8, 50), 32)
    scale, zero = ranges(blocks, FOUR_BITS)
    groups = as_groups(FOUR_BITS.codes(blocks, scale, zero), scale, zero)
    assert torch.equal(groups.weight().view(blocks.shape), FOUR_BITS.nearest(blocks, scale, zero))
