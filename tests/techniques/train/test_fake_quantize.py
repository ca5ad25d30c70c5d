"""The fake-quantized layer: whose gradient it has, and when it rounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.techniques.quantize.groups import Grid
from backend.techniques.rounding import by_groups, by_rows
from backend.techniques.train.fake_quantize import FakeQuantizedLinear


def test_the_gradient_is_that_of_the_rounded_weight_and_moves_the_float_one() -> None:
    torch.manual_seed(0)
    layer = FakeQuantizedLinear(nn.Linear(32, 4), by_groups(32, Grid(2)))
    x = torch.randn(5, 32, requires_grad=True)
    layer(x).pow(2).sum().backward()
    rounded = layer.rounded.clone().requires_grad_()
    twin = x.detach().clone().requires_grad_()
    nn.functional.linear(twin, rounded, layer.bias).pow(2).sum().backward()
    assert torch.equal(layer.weight.grad, rounded.grad)  # type: ignore[arg-type]
    assert torch.equal(x.grad, twin.grad)  # type: ignore[arg-type]


def test_a_weight_is_rounded_once_until_it_moves() -> None:
    calls: list[int] = []

    def rounding(weight: Tensor) -> Tensor:
        calls.append(1)
        return by_rows(weight)

    layer = FakeQuantizedLinear(nn.Linear(8, 4), rounding)
    with torch.inference_mode():  # a look comes first
        layer(torch.ones(1, 8))
    layer(torch.ones(1, 8)).sum().backward()
    assert len(calls) == 1
    torch.optim.SGD(layer.parameters(), 1.0).step()
    with torch.inference_mode():
        got = layer(torch.eye(8)) - layer.bias  # rounds once more
    assert len(calls) == 2
    assert torch.allclose(got.T, by_rows(layer.weight), atol=1e-6)
