"""Layers without zeros compute what the dense ones do, in calls of every length, and hold what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from backend.engine.held import families
from backend.recipe.stores import Ground, Matrix, Zeros
from backend.recipe.switch import read_switch
from backend.recipe.switches.sparse_kernels import SparseKernels
from backend.techniques.base import tensor_bytes
from backend.techniques.prune.masks import choose
from backend.techniques.prune.sparse_linear import (
    ROWS_AT_A_TIME,
    BlockLinear,
    CsrLinear,
    SparseLinear,
    TwoOfFourLinear,
    blocks_kept,
)
from backend.techniques.quantize.counting import layer_bytes
from backend.techniques.zeros import count_zeros, shown_weight

FORMS: list[type[SparseLinear]] = [BlockLinear, CsrLinear]


def linear(form: type[SparseLinear], ratio: float = 0.75, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(4)
    made = nn.Linear(96, 128, bias=bias).requires_grad_(False)
    pattern = "64x1" if form is BlockLinear else "none"
    made.weight[choose(made.weight.abs(), ratio, pattern, by_row=False)] = 0
    return made


@torch.inference_mode()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 96), (1, 1, 96), (2, 7, 96), (ROWS_AT_A_TIME + 3, 96)])
def test_it_computes_what_the_dense_layer_does(form: type[SparseLinear], bias: bool, shape: tuple[int, ...]) -> None:
    dense = linear(form, bias=bias)
    sparse, x = form(dense), torch.randn(shape)
    torch.testing.assert_close(sparse(x), dense(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.99])
def test_the_dense_matrix_comes_back_bit_by_bit(form: type[SparseLinear], ratio: float) -> None:
    dense = linear(form, ratio)
    shown = shown_weight(form(dense))
    assert shown is not None
    assert torch.equal(shown, dense.weight)
    assert count_zeros(shown) == count_zeros(dense.weight)


def test_bytes_are_those_of_what_is_left() -> None:
    csr, block = CsrLinear(linear(CsrLinear, bias=False)), BlockLinear(linear(BlockLinear, bias=False))
    left = 128 * 96 // 4
    assert csr.multiplied == block.multiplied == left
    assert tensor_bytes(*csr.buffers()) == layer_bytes(csr) == 8 * left + 4 * 129
    assert tensor_bytes(*block.buffers()) == layer_bytes(block) == 4 * left + 8 * left // 64


def test_blocks_that_keep_different_inputs_are_filled_up() -> None:
    dense = linear(BlockLinear, 0.5, bias=False)
    dense.weight[64:, :] = 0
    dense.weight[64:, 5] = 1
    sparse = BlockLinear(dense)
    assert sparse.values.shape == (2, 48, 64)
    assert torch.equal(sparse.dense_weight(), dense.weight)


def test_the_share_that_blocks_hold() -> None:
    assert blocks_kept(linear(BlockLinear, 0.75).weight) == 0.25
    assert blocks_kept(torch.ones(96, 4)) == 128 / 96


@torch.inference_mode()
def test_rows_that_make_no_whole_blocks() -> None:
    dense = nn.Linear(32, 100).requires_grad_(False)
    dense.weight[choose(dense.weight.abs(), 0.5, "64x1", by_row=False)] = 0
    sparse = BlockLinear(dense)
    assert torch.equal(sparse.dense_weight(), dense.weight)
    for rows in (torch.randn(1, 32), torch.randn(9, 32)):
        torch.testing.assert_close(sparse(rows), dense(rows))


@pytest.mark.parametrize("form", FORMS)
def test_the_receipt_finds_its_zeros_and_its_format(form: type[SparseLinear]) -> None:
    (family,) = families(nn.ModuleList([form(linear(form, bias=False))]))
    assert family.format == form.sparse_format
    assert family.weights == family.looked_at == 96 * 128
    assert family.zeros == 96 * 128 * 3 // 4


def test_a_matrix_of_zeros_gives_zeros() -> None:
    dense = nn.Linear(96, 128, bias=False).requires_grad_(False)
    nn.init.zeros_(dense.weight)
    x: Tensor = torch.randn(2, 96)
    for form in FORMS:
        assert not form(dense)(x).any()
        assert not form(dense)(x[:1]).any()


@pytest.mark.parametrize(("form", "pattern", "ratio"), [(CsrLinear, "none", 0.75), (BlockLinear, "64x1", 0.5)])
def test_the_forecast_knows_their_bytes(form: type[SparseLinear], pattern: str, ratio: float) -> None:
    zeros = read_switch("magnitude", {"ratio": ratio, "pattern": pattern}).zeros
    stored = SparseKernels().stores(Ground(4, 2, False, zeros))
    assert stored is not None
    assert stored.head is None
    assert stored.body(Matrix(128, 96)) == layer_bytes(form(linear(form, ratio, bias=False)))


def test_where_no_gain_is_likely_dense_bytes_are_forecast() -> None:
    assert SparseKernels().stores(Ground(4, 2, False, Zeros(0.5))) is None
    assert SparseKernels().stores(Ground(4, 2, False)) is None


@torch.inference_mode()
@pytest.mark.skipif(not torch.cuda.is_available(), reason="sparse tensor cores are a GPU's")
@pytest.mark.parametrize("count", [1, 7, 128])
def test_two_of_four_on_a_gpu(count: int) -> None:
    dense = nn.Linear(256, 512).requires_grad_(False).to("cuda", torch.float16)
    dense.weight[choose(dense.weight.abs(), 0.5, "2:4", by_row=False)] = 0
    sparse, x = TwoOfFourLinear(dense), torch.randn(count, 256, device="cuda", dtype=torch.float16)
    torch.testing.assert_close(sparse(x), dense(x), atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(sparse.dense_weight(), dense.weight, atol=0, rtol=0)
    assert sparse.multiplied == 256 * 512 // 2
    assert layer_bytes(sparse, bias=False) < 0.6 * dense.weight.nbytes


def test_a_cpu_has_no_sparse_tensor_cores() -> None:
    with pytest.raises(RuntimeError, match=r"CUDA|cuda"):
        TwoOfFourLinear(nn.Linear(64, 64).requires_grad_(False).half())
