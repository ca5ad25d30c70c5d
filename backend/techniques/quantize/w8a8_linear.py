"""A linear layer that multiplies int8 activations by int8 weights on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backend.techniques.quantize.int8_linear import quantize_rows

LARGEST = 127  # of symmetric int8
TINY = 1e-12  # a scale above 0 for a token of zeros


@dataclass(frozen=True)
class StaticRange:
    """An activation range that was fixed beforehand: x is about scale * (code - zero), codes 0 to 255."""

    scale: float
    zero: int


class W8A8Linear(nn.Module):
    """y = x W^T + bias in int8: one symmetric weight scale per output channel; activation scales a token, or one fixed.

    oneDNN's `qlinear_pointwise` accumulates in int32 and takes one activation scale a call. So a token's own scale is
    applied after the product, to its row: x = a q, y = a (q W^T). A row's result is then the same whatever other
    rows the call holds, which torch's dynamic layers cannot say: decode, prefill and scoring agree.
    """

    weight_scale: Tensor  # (N,) float32
    weight_zero: Tensor  # (N,) int32: zeros, which the kernel asks for

    def __init__(self, linear: nn.Linear, static: StaticRange | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.static = static
        codes, scale = quantize_rows(linear.weight.detach())
        self.packed = torch.ops.onednn.qlinear_prepack(codes.t(), None)  # opaque: no buffer, its layout is the kernel's
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero", torch.zeros(self.out_features, dtype=torch.int32))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().float(), requires_grad=False)

    @property
    def packed_bytes(self) -> int:
        """Bytes behind the opaque weight."""
        return self.in_features * self.out_features

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) of any float dtype -> (..., N) of the same dtype."""
        rows = x.reshape(-1, self.in_features).float()  # (M, K)
        if self.static is None:
            scale = rows.abs().amax(dim=1, keepdim=True).div_(LARGEST).clamp_min_(TINY)  # (M, 1)
            out = self._multiply((rows / scale).round_().to(torch.int8), 1.0, 0).mul_(scale)
            if self.bias is not None:
                out += self.bias
        else:
            codes = rows.mul(1 / self.static.scale).round_().add_(self.static.zero).clamp_(0, 255).to(torch.uint8)
            out = self._multiply(codes, self.static.scale, self.static.zero, self.bias)
        return out.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def _multiply(self, codes: Tensor, scale: float, zero: int, bias: Tensor | None = None) -> Tensor:
        """Codes (M, K) -> (M, N) float32."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            codes, scale, zero, self.packed, self.weight_scale, self.weight_zero, bias,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product

    def extra_repr(self) -> str:
        """What print(model) shows."""
        how = "a scale a token" if self.static is None else f"scale {self.static.scale:.3g}, zero {self.static.zero}"
        return f"in_features={self.in_features}, out_features={self.out_features}, {how}, bias={self.bias is not None}"
