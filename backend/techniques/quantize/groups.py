"""Groups of weights in the terms of the int4 kernel: codes 0..15, and a bf16 scale and zero for each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MIDDLE = 8  # the kernel computes (code - 8) * scale + zero
SHRINKS = tuple(1 - step / 20 for step in range(11))  # of a group's range that a search tries: 1, .95, ... .5


class Groups(NamedTuple):
    """A matrix (N, K) as the kernel's numbers."""

    codes: Tensor  # (N, K) integers 0..15
    scales_and_zeros: Tensor  # (K / group, N, 2) bfloat16

    def weight(self) -> Tensor:
        """The matrix (N, K) that the kernel multiplies with, float32."""
        scale, zero = self.scales_and_zeros.float().transpose(0, 1).unbind(dim=2)  # (N, G) each
        blocks = self.codes.view(*scale.shape, -1).float() - MIDDLE  # (N, G, g)
        return (blocks * scale[..., None] + zero[..., None]).view(self.codes.shape)


@dataclass(frozen=True)
class Grid:
    """Which of the 16 codes may be used, and how a group's scale and zero follow from its range.

    Asymmetric: 2^bits levels from the smallest to the largest weight. Symmetric: 2^bits - 1 levels around an exact
    zero, so that 2 bits are -s, 0, s. Scale and zero are rounded to bf16 before codes are chosen, since those are what
    the kernel multiplies with.
    """

    bits: int = 4
    symmetric: bool = False

    @property
    def first(self) -> int:
        """The smallest code."""
        return MIDDLE - (1 << (self.bits - 1)) + self.symmetric

    @property
    def last(self) -> int:
        """The largest code."""
        return MIDDLE + (1 << (self.bits - 1)) - 1

    def spread(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero, float32 with bf16's values, for groups that reach from `low` to `high`."""
        if self.symmetric:
            scale = torch.maximum(-low, high) / (self.last - MIDDLE)
        else:
            scale = (high - low) / (self.last - self.first)
        scale = scale.bfloat16().float()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        zero = torch.zeros_like(scale) if self.symmetric else low + (MIDDLE - self.first) * scale
        return scale, zero.bfloat16().float()

    def codes(self, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """The nearest code of each weight, as float32."""
        return (torch.round((weight - zero) / scale) + MIDDLE).clamp_(self.first, self.last)

    def nearest(self, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """The weight of the nearest code."""
        return (self.codes(weight, scale, zero) - MIDDLE) * scale + zero


FOUR_BITS = Grid()


def blocks_of(weight: Tensor, group_size: int) -> Tensor:
    """(N, K) -> (N, G, g) float32, K padded with zeros to a multiple of the group."""
    padded = F.pad(weight.detach().float(), (0, -weight.shape[1] % group_size))
    return padded.view(weight.shape[0], -1, group_size)


def ranges(blocks: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero (N, G, 1) of each group, from its smallest to its largest weight."""
    return grid.spread(blocks.amin(dim=2, keepdim=True), blocks.amax(dim=2, keepdim=True))


def searched_ranges(blocks: Tensor, grid: Grid, inner: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero (N, G, 1) of each group, its range shrunk to where the group's own output errs least.

    Args:
        blocks: (N, G, g).
        inner: (G, g, g), each group's block of the Hessian on the diagonal.
    """
    low, high = blocks.amin(dim=2, keepdim=True), blocks.amax(dim=2, keepdim=True)
    least = torch.full_like(low, torch.inf)
    scale, zero = grid.spread(low, high)
    for shrink in SHRINKS:
        tried_scale, tried_zero = grid.spread(low * shrink, high * shrink)
        off = (grid.nearest(blocks, tried_scale, tried_zero) - blocks).transpose(0, 1)  # (G, N, g)
        error = (off @ inner).mul_(off).sum(dim=2).T[..., None]  # (N, G, 1)
        better = error < least
        least = torch.where(better, error, least)
        scale, zero = torch.where(better, tried_scale, scale), torch.where(better, tried_zero, zero)
    return scale, zero


def as_groups(codes: Tensor, scale: Tensor, zero: Tensor) -> Groups:
    """Codes (N, G, g) or (N, K) with scales and zeros (N, G, 1), in the kernel's shapes and types."""
    scales_and_zeros = torch.cat((scale, zero), dim=2).transpose(0, 1).bfloat16().contiguous()
    return Groups(codes.reshape(codes.shape[0], -1).to(torch.uint8), scales_and_zeros)
