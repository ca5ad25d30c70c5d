"""Fake quantization: a linear layer whose forward pass uses the rounded weight, and whose gradient passes by it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.techniques.rounding import Rounding


class FakeQuantizedLinear(nn.Linear):
    """y = x' W'^T + bias with W' the rounded weight, and x' the rounded input where that is asked for.

    Weight and bias are the float layer's own parameters, tied ones included, so that names, the optimizer and
    checkpoints know nothing of it. W' is computed once for each state of the weight: what is looked at between two
    steps costs no rounding, and evaluation sees the same layer as training.

    Own layer: torchao's rounds at every call, and would round a model anew for every token that a look generates.
    """

    def __init__(self, layer: nn.Linear, rounding: Rounding, round_input: nn.Module | None = None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.round_input = round_input
        self._rounding = rounding
        self._rounded: tuple[tuple[int, int], Tensor] | None = None  # by the state of the weight

    @property
    def rounded(self) -> Tensor:
        """The weight (N, K) as it is after its conversion, float32."""
        state = (self.weight.data_ptr(), self.weight._version)
        if self._rounded is None or self._rounded[0] != state:
            self._rounded = None  # freed before the next one is made
            with torch.inference_mode(False), torch.no_grad():  # a look's tensors could not be trained with
                self._rounded = state, self._rounding(self.weight)
        return self._rounded[1]

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        if self.round_input is not None:
            x = self.round_input(x)
        return F.linear(x, _StraightThrough.apply(self.weight, self.rounded), self.bias)

    def plain(self) -> nn.Linear:
        """The float layer with the weights as they are now."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight, layer.bias = self.weight, self.bias
        return layer.train(self.training)


class _StraightThrough(torch.autograd.Function):
    """The rounded weight, with the gradient of the weight itself (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
