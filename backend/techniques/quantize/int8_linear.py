"""A linear layer with int8 weights for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PACKED_ROWS = 16  # up to so many rows the packed kernel is the fastest
WIDTH_STEP = 32  # the packed kernel reads past the end of rows whose width is no multiple of 16
BLOCK = 1 << 18  # weights made float at a time: 1 MB, which stays in the cache of one core
ROWS_AT_A_TIME = 1 << 22  # weights rounded at a time, so that packing a large head takes no copy of it


class Int8Linear(nn.Module):
    """y = x (scale * q)^T + bias: int8 weights q (N, K), one symmetric scale per output channel, float activations.

    Two ways to multiply, by the number of rows M in the call (ms on one AVX-512 core, N x K = 32768 x 640):

    | M | fp32 | packed, bf16 activations | packed, fp32 activations | int8 made fp32 in blocks |
    | 1 | 6.2 | 1.7 | 15 | 4.8 |
    | 16 | 17 | 11 | 190 | 10 |
    | 64 | 26 | 41 | 760 | 22 |
    | 256 | 77 | 202 | | 76 |

    So a decode step and the verification of up to 16 guessed tokens run `_weight_int8pack_mm` on bf16 activations
    (relative error of the product .0024, below the .0076 of rounding the weights to int8), and a row's result is the
    same there for every M. Longer calls (prefill) run the fp32 product over blocks, exact but for the rounding of the
    weights. Scales stay fp32 and are applied after the product: inside the kernel they would be bf16 (error .0030).
    """

    packed: Tensor  # (N, K rounded up to WIDTH_STEP) int8
    scale: Tensor  # (N,) float32
    ones: Tensor  # (N,) bfloat16: the kernel's own scales

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._hold(*quantize_rows(linear.weight.detach()), linear.bias)

    @classmethod
    def from_codes(cls, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Int8Linear:
        """The layer out of what was kept of one: codes (N, K) int8, scales (N,) float32, bias (N,)."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._hold(codes, scale, bias)
        return layer

    def _hold(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self.out_features, self.in_features = codes.shape
        self.padding = -self.in_features % WIDTH_STEP
        self.register_buffer("packed", F.pad(codes, (0, self.padding)).contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("ones", torch.ones(self.out_features, dtype=torch.bfloat16))
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)

    @property
    def codes(self) -> Tensor:
        """The int8 weights (N, K), without the padding."""
        return self.packed[:, : self.in_features]

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) of any float dtype -> (..., N) of the same dtype."""
        rows = x.reshape(-1, self.in_features)  # (M, K)
        if self.padding:
            rows = F.pad(rows, (0, self.padding))
        out = product(rows, self.packed, self.scale, self.ones)  # (M, N) float32
        if self.bias is not None:
            out += self.bias
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def product(rows: Tensor, packed: Tensor, scale: Tensor, ones: Tensor) -> Tensor:
    """x (scale * q)^T: (M, K padded) of any float dtype -> (M, N) float32, the faster way for so many rows."""
    if rows.shape[0] <= PACKED_ROWS:
        out = torch.ops.aten._weight_int8pack_mm(rows.to(torch.bfloat16).contiguous(), packed, ones)
        return out.float().mul_(scale)
    rows = rows.float()
    out = rows.new_empty(rows.shape[0], packed.shape[0])
    step = max(1, BLOCK // packed.shape[1])
    for start in range(0, packed.shape[0], step):
        part = slice(start, start + step)
        torch.mul(F.linear(rows, packed[part].float()), scale[part], out=out[:, part])
    return out


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round (N, K) to int8 with one symmetric scale a row: q = round(w / s), s = max|w| / 127.

    Returns:
        q (N, K) int8 and s (N,) float32. A row of zeros gets the scale 1.
    """
    packed = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty(weight.shape[0], dtype=torch.float32)
    step = max(1, ROWS_AT_A_TIME // weight.shape[1])
    for start in range(0, weight.shape[0], step):
        part = slice(start, start + step)
        block = weight[part].float()
        largest = block.abs().amax(dim=1)
        scale[part] = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
        packed[part] = torch.round(block / scale[part, None]).clamp_(-127, 127).to(torch.int8)
    return packed, scale
