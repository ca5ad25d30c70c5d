"""An embedding whose table is packed: a row is made float when a token looks it up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.recipe.switches.embedding import GROUP
from backend.techniques.quantize.groups import FOUR_BITS, MIDDLE, blocks_of, ranges
from backend.techniques.quantize.int8_linear import ROWS_AT_A_TIME, Int8Linear, quantize_rows


class PackedEmbedding(nn.Module):
    """Rows in int8 with a scale each, or in 4 bits with a scale and zero for each group of 32.

    In a decode step one row is looked up, so it saves memory and no time. In 8 bits it is what `Int8Linear` holds of
    the same matrix, so a tied head and its embedding can go on sharing one table.
    """

    codes: Tensor  # 8 bits: (V, K or more) int8; 4 bits: (V, K / 2) uint8, the first of two in the low half
    scale: Tensor  # 8 bits: (V,) float32; 4 bits: (V, K / 32, 2) bfloat16, scale and zero

    def __init__(self, codes: Tensor, scale: Tensor, width: int, multiplier: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = codes.shape[0], width
        self.multiplier, self.dtype = multiplier, dtype
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    @property
    def bits(self) -> int:
        """Of a number."""
        return 8 if self.codes.dtype is torch.int8 else 4

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (...) to their rows (..., K), multiplied as the model's own embedding does."""
        codes, scale = self.codes[ids], self.scale[ids].float()
        if self.bits == 8:
            rows = codes[..., : self.embedding_dim].float() * scale[..., None]
        else:
            rows = rows_of_fours(codes, scale)
        rows = rows.to(self.dtype)
        return rows if self.multiplier == 1 else rows * torch.tensor(self.multiplier, dtype=self.dtype)

    def is_that_of(self, head: nn.Module | None) -> bool:
        """Whether a head reads the very same codes."""
        return isinstance(head, Int8Linear) and head.packed.data_ptr() == self.codes.data_ptr()

    def share(self, head: Int8Linear) -> None:
        """Look rows up in what an int8 head holds."""
        self.codes, self.scale = head.packed, head.scale

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"{self.num_embeddings}, {self.embedding_dim}, bits={self.bits}"


def rows_of_fours(codes: Tensor, scale: Tensor) -> Tensor:
    """Codes (..., K / 2), two a byte, with scales and zeros (..., K / 32, 2) float32: the rows (..., K) float32."""
    pairs = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2)  # (..., K)
    groups = pairs.unflatten(-1, (-1, GROUP)).float() - MIDDLE
    return (groups * scale[..., :1] + scale[..., 1:]).flatten(-2)


def pack_table(old: nn.Embedding, bits: int, head: nn.Module | None) -> PackedEmbedding:
    """The table of an embedding in 8 or 4 bits, rounded to nearest; in 8 that of the head where it holds the same."""
    weight = old.weight.detach()
    codes, scale = _rows8(weight) if bits == 8 else _rows4(weight)
    if isinstance(head, Int8Linear) and torch.equal(head.codes, codes) and torch.equal(head.scale, scale):
        codes, scale = head.packed, head.scale
    multiplier = float(getattr(old, "embed_scale", 1.0))  # Gemma multiplies rows by the root of their width
    return PackedEmbedding(codes, scale, weight.shape[1], multiplier, weight.dtype)


def _rows8(weight: Tensor) -> tuple[Tensor, Tensor]:
    codes, scale = quantize_rows(weight)
    return codes.to(weight.device), scale.to(weight.device)


def _rows4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A block of rows at a time, so that no float copy of a large table is made."""
    codes, scales = [], []
    for part in weight.split(max(1, ROWS_AT_A_TIME // weight.shape[1])):
        blocks = blocks_of(part, GROUP)  # (n, G, 32)
        scale, zero = ranges(blocks, FOUR_BITS)  # (n, G, 1) each
        fours = FOUR_BITS.codes(blocks, scale, zero).to(torch.uint8).flatten(1)  # (n, K)
        codes.append(fours[:, ::2] | fours[:, 1::2] << 4)
        scales.append(torch.cat((scale, zero), dim=2).bfloat16())
    return torch.cat(codes), torch.cat(scales)
