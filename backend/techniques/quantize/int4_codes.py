"""The codes of an int4 matrix, out of the kernel's private layout and into it again."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.techniques.quantize.groups import MIDDLE

ROWS_AT_A_TIME = 4096  # packed at a time: a multiple of every block that a CPU's layout has
ASKED_AT_A_TIME = 64  # rows of one call of the kernel


def unpack_codes(packed: Tensor, group_size: int) -> Tensor:
    """Codes (N, K / 2) uint8, the first of two in the low half, of a matrix (N, K) that is packed for this CPU.

    The layout is private and differs by CPU, so the kernel itself is asked: with scales of 1 and zeros of 8 it
    computes x W^T with W the codes, and a row x with a 1 and a 16 side by side gives both codes of a byte. Every
    number on the way is whole and below 256, which bf16 holds exactly.
    """
    rows, pairs = packed.shape
    ones = torch.ones(2 * pairs // group_size, rows, 2, dtype=torch.bfloat16)
    ones[..., 1] = MIDDLE
    codes = torch.empty(rows, pairs, dtype=torch.uint8)
    for start in range(0, pairs, ASKED_AT_A_TIME):
        end = min(pairs, start + ASKED_AT_A_TIME)
        asked = torch.zeros(end - start, 2 * pairs, dtype=torch.bfloat16)  # (M, K)
        row = torch.arange(end - start)
        asked[row, 2 * (start + row)] = 1
        asked[row, 2 * (start + row) + 1] = 16
        answer = torch.ops.aten._weight_int4pack_mm_for_cpu(asked, packed, group_size, ones)  # (M, N)
        codes[:, start:end] = answer.to(torch.uint8).T
    return codes


def pack_codes(codes: Tensor) -> Tensor:
    """The inverse of `unpack_codes`, a block of rows at a time, since the packer takes a code in four bytes."""
    blocks = []
    for part in codes.split(ROWS_AT_A_TIME):
        wide = torch.stack((part & 15, part >> 4), dim=2).flatten(1).to(torch.int32)  # (n, K)
        blocks.append(torch.ops.aten._convert_weight_to_int4pack_for_cpu(wide, 1))
    return torch.cat(blocks)
