"""The two int8 kernels against integer arithmetic, and against each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from backend.techniques.base import Subject
from backend.techniques.quantize import w8a8_kernels
from backend.techniques.quantize.activations import pack
from backend.techniques.quantize.w8a8_kernels import Fbgemm, Kernel, OneDnn, pick
from backend.techniques.quantize.w8a8_linear import StaticRange, W8A8Linear, levels

BOTH = [Fbgemm, OneDnn]


@pytest.fixture(params=BOTH, ids=[kernel.name for kernel in BOTH])
def kernel(request: pytest.FixtureRequest) -> type[Kernel]:
    if not request.param.runs():
        pytest.skip(f"{request.param.name} does not run on this CPU")
    return request.param


def numbers(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (N, K), scales (N,) and a bias (N,)."""
    generator = torch.Generator().manual_seed(rows)
    codes = torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=generator)
    return codes, torch.rand(rows, generator=generator) + 0.1, torch.randn(rows, generator=generator)


@pytest.mark.parametrize("shape", [(48, 100), (7, 33), (262, 64)])
@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("zero", [0, 60])
def test_it_is_integer_arithmetic(kernel: type[Kernel], shape: tuple[int, int], count: int, zero: int) -> None:
    codes, scale, bias = numbers(*shape)
    step = 1 / levels()
    x = torch.rand(count, shape[1], generator=torch.Generator().manual_seed(1)) * (levels() - zero) * step
    asked = (torch.round(x / step) + zero).clamp(0, 255).to(torch.int64)
    want = ((asked - zero) @ codes.to(torch.int64).T).double() * scale * step + bias
    got = kernel(codes, scale, bias).multiply(x, step, zero)
    assert torch.allclose(got.double(), want, rtol=1e-4, atol=1e-3 * float(want.abs().max()))


def test_it_gives_back_what_it_was_given(kernel: type[Kernel]) -> None:
    codes, scale, bias = numbers(48, 100)
    found = kernel(codes, scale, bias).unpacked()
    assert torch.equal(found[0], codes)
    assert torch.allclose(found[1], scale)
    assert found[2] is not None
    assert torch.equal(found[2], bias)


@pytest.mark.parametrize("static", [None, StaticRange(0.03, 60)])
def test_a_layer_computes_the_same_on_either(static: StaticRange | None) -> None:
    if not all(kernel.runs() for kernel in BOTH):
        pytest.skip("one of them does not run on this CPU")
    linear = nn.Linear(96, 40)
    x = torch.randn(2, 9, 96)
    first, second = (W8A8Linear(linear, static, kernel)(x) for kernel in BOTH)
    assert torch.allclose(first, second, atol=1e-4)


def test_where_one_does_not_run_the_other_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(w8a8_kernels.OneDnn, "runs", classmethod(lambda cls: False))
    assert pick("onednn") is Fbgemm


def test_decoders_get_the_kernel_of_short_calls(tiny_gqa: Subject) -> None:
    pack(tiny_gqa, "int8_dynamic", None)
    layers = [layer for layer in tiny_gqa.model.modules() if isinstance(layer, W8A8Linear)]
    assert {layer.kernel.name for layer in layers} == {"fbgemm"}
