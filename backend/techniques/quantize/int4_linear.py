"""A linear layer with int4 weights in groups for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.techniques.quantize.groups import FOUR_BITS, Grid, Groups, ranges

ROW_STEP = 16  # the packer wants a multiple of it
ROWS_AT_A_TIME = 1 << 22  # weights rounded at a time
NEAREST = "round to nearest"


class Int4Linear(nn.Module):
    """y = x W^T + bias with W in int4: groups of inputs share a bf16 scale and zero.

    Codes, scales and zeros are the float layer's weights rounded to nearest, asymmetric, or what another method chose
    for them: size and speed are the same.

    The kernel is `_weight_int4pack_mm_for_cpu` on bf16 activations (fp32 activations take a path 31 times slower).
    On one AVX-512 core, N x K = 32768 x 640: 1.0 ms against fp32's 6.2 for one row, level with it at about 32
    rows, 1.2 times its time at 64 and 1.8 times at 256: prefill gets slower. The packed layout is private to the
    kernel and differs by CPU, so there is no way around it for long calls.

    Output rows are padded to a multiple of 16 and inputs to a multiple of the group, both with zeros: a pruned width
    need not fit.
    """

    packed: Tensor  # (N up to ROW_STEP, K up to the group / 2) uint8, two codes a byte, in the kernel's order
    scales_and_zeros: Tensor  # (K / group, N, 2) bfloat16

    def __init__(self, linear: nn.Linear, group_size: int, chosen: Groups | None = None, method: str = NEAREST) -> None:
        """Pack a float layer.

        Args:
            chosen: numbers of its own rows, inputs padded to the group; None rounds its weights to nearest.
            method: what chose them, for the receipt.
        """
        super().__init__()
        if chosen is None:
            chosen = quantize_groups(F.pad(linear.weight.detach(), (0, -linear.in_features % group_size)), group_size)
        rows = -linear.out_features % ROW_STEP
        codes = F.pad(chosen.codes, (0, 0, 0, rows)).to(torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        scales_and_zeros = F.pad(chosen.scales_and_zeros, (0, 0, 0, rows))
        shape = (linear.out_features, linear.in_features)
        self._hold(shape, group_size, packed, scales_and_zeros, linear.bias, method)

    @classmethod
    def from_packed(
        cls,
        shape: tuple[int, int],
        group_size: int,
        packed: Tensor,
        scales_and_zeros: Tensor,
        bias: Tensor | None,
        method: str = NEAREST,
    ) -> Int4Linear:
        """The layer (N, K) out of what was kept of one; `packed` as int4_codes.py packs it for this CPU."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._hold(shape, group_size, packed, scales_and_zeros, bias, method)
        return layer

    def _hold(
        self,
        shape: tuple[int, int],
        group_size: int,
        packed: Tensor,
        scales_and_zeros: Tensor,
        bias: Tensor | None,
        method: str,
    ) -> None:
        self.out_features, self.in_features = shape
        self.group_size = group_size
        self.padding = -self.in_features % group_size
        self.method = method
        self.register_buffer("packed", packed)
        self.register_buffer("scales_and_zeros", scales_and_zeros)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) of any float dtype -> (..., N) of the same dtype."""
        out = self.product(x.reshape(-1, self.in_features))
        if self.bias is not None:
            out = out.float() + self.bias
        return out.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def product(self, rows: Tensor) -> Tensor:
        """x W^T of the kernel, without the bias: (M, K) of any float dtype -> (M, N) bfloat16."""
        rows = rows.to(torch.bfloat16)
        if self.padding:
            rows = F.pad(rows, (0, self.padding))
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows.contiguous(), self.packed, self.group_size, self.scales_and_zeros
        )  # (M, N padded)
        return out[:, : self.out_features]

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, group_size={self.group_size}, "
            f"bias={self.bias is not None}, method={self.method!r}"
        )


def quantize_groups(weight: Tensor, group_size: int, grid: Grid = FOUR_BITS) -> Groups:
    """Round (N, K) to the nearest codes, each group of a row spread from its smallest to its largest weight.

    Returns:
        Codes (N, K) uint8 and scales with zeros (K / group, N, 2) bfloat16; a weight is (code - 8) * scale + zero.
    """
    rows, width = weight.shape
    groups = width // group_size
    codes = torch.empty(rows, width, dtype=torch.uint8)
    scales_and_zeros = torch.empty(groups, rows, 2, dtype=torch.bfloat16)
    step = max(1, ROWS_AT_A_TIME // width)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        block = weight[part].float().view(-1, groups, group_size)  # (n, G, g)
        scale, zero = ranges(block, grid)  # (n, G, 1)
        codes[part] = grid.codes(block, scale, zero).view(-1, width).to(torch.uint8)
        scales_and_zeros[:, part] = torch.cat((scale, zero), dim=2).transpose(0, 1).bfloat16()
    return Groups(codes, scales_and_zeros)


def nearest_weight(weight: Tensor, group_size: int) -> Tensor:
    """A float matrix (N, K) as it is after rounding to nearest."""
    padded = F.pad(weight, (0, -weight.shape[1] % group_size))
    return quantize_groups(padded, group_size).weight()[:, : weight.shape[1]]
