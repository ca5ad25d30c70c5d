"""A linear layer that multiplies int8 activations by int8 weights on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backend.techniques.quantize.int8_linear import quantize_rows
from backend.techniques.quantize.w8a8_kernels import Fbgemm, Kernel

TINY = 1e-12  # a span above 0 for a token of zeros


def levels() -> int:
    """Steps of an activation: 255, or 127 where the CPU has no VNNI and adds two products in 16 bits."""
    return 255 if torch.cpu._is_vnni_supported() else 127


@dataclass(frozen=True)
class StaticRange:
    """An activation range that was fixed beforehand: x is about scale * (code - zero), codes from 0 to `levels()`."""

    scale: float
    zero: int


class W8A8Linear(nn.Module):
    """y = x W^T + bias in int8: one symmetric weight scale per output channel; activation ranges a token, or one fixed.

    The kernels (w8a8_kernels.py) take one activation scale a call. So every token is first stretched to fill 0 to 1,
    which one fixed scale fits, and the product is stretched back: with low = min(x, 0) and span = max(x, 0) - low of a
    token, x W^T = span ((x - low) / span) W^T + low (sum of W's columns). A token's result is then the same whatever
    others the call holds, which torch's dynamic layers cannot say: decode, prefill and scoring agree.

    Microseconds with fbgemm on two AVX-512 cores with VNNI, N x K = 2048 x 640, in one run:

    | M | fp32 | torch's dynamic layer | a range a token | a fixed range |
    | 1 | 85 | 20 | 29 | 20 |
    | 16 | 299 | 58 | 71 | 111 |
    | 256 | 2261 | 895 | 1064 | 892 |
    """

    column_sums: Tensor  # (N,) float32: sums over the inputs of the weights as they are held

    def __init__(self, linear: nn.Linear, static: StaticRange | None = None, kernel: type[Kernel] = Fbgemm) -> None:
        super().__init__()
        codes, scale = quantize_rows(linear.weight.detach())
        self._hold(codes, scale, linear.bias, static, kernel)

    @classmethod
    def from_codes(
        cls,
        codes: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        static: StaticRange | None,
        kernel: type[Kernel] = Fbgemm,
    ) -> W8A8Linear:
        """The layer out of codes (N, K) int8, a scale (N,) float32 a row, and a bias (N,)."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._hold(codes, scale, bias, static, kernel)
        return layer

    def _hold(
        self,
        codes: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        static: StaticRange | None,
        kernel: type[Kernel],
    ) -> None:
        self.out_features, self.in_features = codes.shape
        self.static = static
        self.has_bias = bias is not None
        bias = bias.detach().float() if bias is not None else None
        # Opaque: the layout is the kernel's own. What is stretched back takes its bias afterwards.
        self.kernel: Kernel = kernel(codes, scale, bias if static else None)
        self.bias = nn.Parameter(bias, requires_grad=False) if bias is not None and static is None else None
        if static is None:
            self.register_buffer("column_sums", codes.sum(1, dtype=torch.int32).float().mul_(scale))

    def unpacked(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What `from_codes` takes: codes, scales, and the bias."""
        codes, scale, bias = self.kernel.unpacked()
        return codes, scale, bias if self.static else self.bias

    @property
    def packed_bytes(self) -> int:
        """Bytes in the kernel: the matrix; a sum (int32), a scale and a zero point a row; the bias."""
        bias = 4 * self.out_features if self.has_bias and self.static else 0
        return self.in_features * self.out_features + 12 * self.out_features + bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) of any float dtype -> (..., N) of the same dtype."""
        rows = x.reshape(-1, self.in_features).float()  # (M, K)
        if self.static is not None:
            if levels() < 255:  # a larger code would overflow the 16 bits
                rows = rows.clamp(max=self.static.scale * (levels() - self.static.zero))
            out = self.kernel.multiply(rows, self.static.scale, self.static.zero)
        else:
            low, high = rows.aminmax(dim=1, keepdim=True)  # (M, 1) each
            low = low.clamp_max_(0)
            span = high.clamp_min_(0).sub_(low).clamp_min_(TINY)
            out = self.kernel.multiply((rows - low).div_(span), 1 / levels(), 0)
            out.mul_(span).addr_(low[:, 0], self.column_sums)
            if self.bias is not None:
                out += self.bias
        return out.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def fitted(self, x: Tensor) -> Tensor:
        """Numbers from a fixed range, out of normally distributed ones: what the layer can fairly be tried with."""
        if self.static is None:
            return x
        shares = x.clamp(-3, 3).add(3).div(6)  # 0 to 1
        return (shares * levels() - self.static.zero) * self.static.scale

    def extra_repr(self) -> str:
        """What print(model) shows."""
        how = "a range a token" if self.static is None else f"scale {self.static.scale:.3g}, zero {self.static.zero}"
        shape = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{shape}, {how}, bias={self.has_bias}, kernel={self.kernel.name}"
