"""An output head whose rows have two precisions, for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int8_linear import WIDTH_STEP, product, quantize_rows


class SplitLinear(Int4Linear):
    """y = x W^T + bias: rows of likely tokens in int8, all in int4, and of a token that has both the int8 one counts.

    Most of a large vocabulary is hardly ever likely, and an error in the logit of an unlikely token moves little
    probability. The likely rows stand in int4 as well: without them the results would have to be put in order, a
    quarter million numbers a token, which takes longer than reading a sixteenth of the rows twice.
    """

    likely: Tensor  # (R,) int64, ascending
    likely_packed: Tensor  # (R, K rounded up to WIDTH_STEP) int8
    likely_scale: Tensor  # (R,) float32
    likely_ones: Tensor  # (R,) bfloat16

    def __init__(self, linear: nn.Linear, group_size: int, likely: Tensor) -> None:
        super().__init__(linear, group_size)
        self._hold_likely(likely, *quantize_rows(linear.weight.detach()[likely]))

    @classmethod
    def from_codes(cls, rest: Int4Linear, likely: Tensor, codes: Tensor, scale: Tensor) -> SplitLinear:
        """The layer out of what was kept of one: all rows, which are likely, their codes (R, K) and scales (R,)."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        shape = (rest.out_features, rest.in_features)
        layer._hold(shape, rest.group_size, rest.packed, rest.scales_and_zeros, rest.bias, rest.method)
        layer._hold_likely(likely, codes, scale)
        return layer

    def _hold_likely(self, likely: Tensor, codes: Tensor, scale: Tensor) -> None:
        self.register_buffer("likely", likely)
        self.register_buffer("likely_packed", F.pad(codes, (0, -self.in_features % WIDTH_STEP)).contiguous())
        self.register_buffer("likely_scale", scale)
        self.register_buffer("likely_ones", torch.ones(len(likely), dtype=torch.bfloat16))

    @property
    def codes(self) -> Tensor:
        """The int8 weights (R, K) of the likely rows, without the padding."""
        return self.likely_packed[:, : self.in_features]

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) of any float dtype -> (..., N) of the same dtype."""
        rows = x.reshape(-1, self.in_features)  # (M, K)
        out = self.product(rows).float()  # (M, N)
        padded = F.pad(rows, (0, -self.in_features % WIDTH_STEP))
        out.index_copy_(1, self.likely, product(padded, self.likely_packed, self.likely_scale, self.likely_ones))
        if self.bias is not None:
            out += self.bias
        return out.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"{super().extra_repr()}, likely={len(self.likely)}"
