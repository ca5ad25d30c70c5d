"""Packing of keys and values: asymmetric codes of 8, 4 or 2 bits in bytes, with a step and a lowest value a group."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDED = 2.0**-10  # more than fp16 loses in rounding: the stored range then always holds the whole group
LARGEST = 65504.0  # of fp16


class Packed(NamedTuple):
    """Tensors of one side of a cache; all have the tokens in their third axis."""

    codes: Tensor  # (B, H, T, D * bits / 8) uint8
    step: Tensor  # fp16: of keys (B, H, T / G, D), of values (B, H, T, D / G)
    low: Tensor  # fp16, shaped like `step`


def pack_keys(states: Tensor, bits: int, group: int) -> Packed:
    """Keys (B, H, T, D) by channel: each channel of `group` tokens shares a scale (Liu et al. 2024, KIVI, 3.2)."""
    batch, heads, tokens, size = states.shape
    blocks = states.reshape(batch, heads, tokens // group, group, size)
    step, low = _scale(blocks, 3, bits)
    codes = _codes(blocks, step[:, :, :, None], low[:, :, :, None], bits)
    return Packed(fold(codes.reshape(states.shape), bits), step, low)


def unpack_keys(packed: Packed, bits: int, group: int, dtype: torch.dtype) -> Tensor:
    """The keys (B, H, T, D) again, as far as the codes tell."""
    codes = unfold(packed.codes, bits).to(dtype)
    batch, heads, tokens, size = codes.shape
    blocks = codes.view(batch, heads, tokens // group, group, size)
    blocks.mul_(packed.step[:, :, :, None].to(dtype)).add_(packed.low[:, :, :, None].to(dtype))
    return codes


def pack_values(states: Tensor, bits: int, group: int) -> Packed:
    """Values (B, H, T, D) by token: each `group` channels of one token share a scale."""
    parts = states.unflatten(-1, (-1, group))
    step, low = _scale(parts, 4, bits)
    codes = _codes(parts, step[..., None], low[..., None], bits)
    return Packed(fold(codes.reshape(states.shape), bits), step, low)


def unpack_values(packed: Packed, bits: int, group: int, dtype: torch.dtype) -> Tensor:
    """The values (B, H, T, D) again, as far as the codes tell."""
    codes = unfold(packed.codes, bits).to(dtype)
    parts = codes.unflatten(-1, (-1, group))
    parts.mul_(packed.step[..., None].to(dtype)).add_(packed.low[..., None].to(dtype))
    return codes


def fold(codes: Tensor, bits: int) -> Tensor:
    """Codes (..., D) below 2^bits into bytes (..., D * bits / 8): part i of the last axis takes bits i * bits on."""
    parts = codes.chunk(8 // bits, dim=-1)
    folded = parts[0].clone()
    for place, part in enumerate(parts[1:], 1):
        folded |= part << (bits * place)
    return folded


def unfold(folded: Tensor, bits: int) -> Tensor:
    """The codes (..., D) of bytes (..., D * bits / 8)."""
    if bits == 8:
        return folded
    mask = 2**bits - 1
    return torch.cat([(folded >> (bits * place)) & mask for place in range(8 // bits)], dim=-1)


def _scale(groups: Tensor, axis: int, bits: int) -> tuple[Tensor, Tensor]:
    """Step and lowest value of each group along `axis`, in fp16, so rounded that the range holds every number."""
    least, most = (side.float() for side in torch.aminmax(groups, dim=axis))
    low = (least - least.abs() * ROUNDED).clamp(-LARGEST, LARGEST).half()
    step = (most - low.float()) / (2**bits - 1) * (1 + ROUNDED)
    return step.clamp(0, LARGEST).half(), low


def _codes(groups: Tensor, step: Tensor, low: Tensor, bits: int) -> Tensor:
    """The nearest code of each number; a group of equal numbers has a step of 0 and codes of 0."""
    divisor = torch.where(step == 0, 1, step).float()
    return ((groups.float() - low.float()) / divisor).round_().clamp_(0, 2**bits - 1).to(torch.uint8)
