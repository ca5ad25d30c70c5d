"""Attention of a batch whose requests are at different places: one row of tokens in, each beside its own past.

All tokens of a step, of whatever request, pass the linear layers as one row, which reads the weights once. Only here
are they told apart. Scores and sums come from torch's own scaled_dot_product_attention, as with one request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from backend.engine.batch.slots import SlotCache
from backend.recipe.base import RecipeError

NAME = "headway_batch"
DENSE = 0.5  # share of the rows times the longest past that must be real for one call to beat one call a request


@dataclass(frozen=True)
class Span:
    """Tokens of one request within the row of a step: `at` is where they begin in it, `start` where in the text."""

    slot: int
    at: int
    start: int
    count: int

    @property
    def end(self) -> int:
        """Tokens that are held once these are."""
        return self.start + self.count


@dataclass
class Row:
    """One step's tokens: those that write, one of each request and by slot, and then those that read a chunk."""

    cache: SlotCache
    slots: Tensor  # (N,)
    positions: Tensor  # (N,)
    writing: list[Span]
    reading: list[Span]
    _masks: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)  # layers of one kind share theirs

    def chunk_mask(self, span: Span, low: int, window: int | None) -> Tensor:
        """Which of the tokens from `low` on each token of a span sees: (T, K), True is seen."""
        key = (span, low, window)
        if key not in self._masks:
            device = self.positions.device
            query = torch.arange(span.start, span.end, device=device)[:, None]
            known = torch.arange(low, span.end, device=device)[None, :]
            seen = known <= query
            self._masks[key] = seen & (known > query - window) if window else seen
        return self._masks[key]

    def rows_mask(self, low: int, first: int, rows: int, longest: int, window: int | None) -> Tensor:
        """What each row of slots sees: (rows, 1, 1, K), True is seen; rows that write nothing see all."""
        key = ("rows", low, first, rows, longest, window)
        if key not in self._masks:
            ends = torch.full((rows,), longest)
            for span in self.writing:
                ends[span.slot - first] = span.end
            known = torch.arange(low, longest)[None, :]
            seen = known < ends[:, None]
            seen = seen & (known >= ends[:, None] - window) if window else seen
            self._masks[key] = seen[:, None, None, :].to(self.positions.device)
        return self._masks[key]


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    row: Row | None = None,
    **unknown: Any,
) -> tuple[Tensor, None]:
    """Write keys and values (1, H, N, D) into their slots, and attend; gives (1, N, H, D).

    Raises:
        RecipeError: for a model whose attention does more than this one can.
    """
    more = sorted(name for name in ("softcap", "s_aux") if unknown.get(name) is not None)
    if row is None or more:
        shown = ", ".join(more) or "attention outside of a batch"
        raise RecipeError(
            "model", shown, "attention by plain scores, causal, with or without a window", "Choose another."
        )
    keys, values = row.cache.layer(module.layer_idx, key, value)
    keys[row.slots, :, row.positions] = key[0].transpose(0, 1)  # (N, H, D)
    values[row.slots, :, row.positions] = value[0].transpose(0, 1)
    out = query.new_empty(query.shape[2], query.shape[1], value.shape[3])  # (N, H, D)
    if row.writing:
        _write(out, query, keys, values, row, scaling, sliding_window)
    for span in row.reading:
        out[span.at : span.at + span.count] = _read(query, keys, values, row, span, scaling, sliding_window)
    return out[None], None


def _read(
    query: Tensor, keys: Tensor, values: Tensor, row: Row, span: Span, scaling: float | None, window: int | None
) -> Tensor:
    """A chunk of one request beside its past: (T, H, D)."""
    low = max(0, span.start - window + 1) if window else 0
    past = slice(low, span.end)
    found = scaled_dot_product_attention(
        query[:, :, span.at : span.at + span.count],
        keys[span.slot, :, past][None],
        values[span.slot, :, past][None],
        attn_mask=row.chunk_mask(span, low, window),
        scale=scaling,
        enable_gqa=query.shape[1] != keys.shape[1],
    )
    return found[0].transpose(0, 1)


def _write(
    out: Tensor, query: Tensor, keys: Tensor, values: Tensor, row: Row, scaling: float | None, window: int | None
) -> None:
    """One new token of each request, in one call over their slots, or one by one where that wastes too much."""
    first, rows = row.writing[0].slot, row.writing[-1].slot - row.writing[0].slot + 1
    longest, count = max(span.end for span in row.writing), len(row.writing)
    heads, groups = keys.shape[1], query.shape[1] // keys.shape[1]
    asked = query[0, :, :count].transpose(0, 1).reshape(count, heads, groups, -1)  # heads of one key share its call
    if sum(span.end for span in row.writing) < DENSE * rows * longest:
        for place, span in enumerate(row.writing):
            past = slice(max(0, span.end - window) if window else 0, span.end)
            pair = keys[span.slot, :, past][None], values[span.slot, :, past][None]
            found = scaled_dot_product_attention(asked[place : place + 1], *pair, scale=scaling)
            out[place] = found.reshape(out.shape[1:])
        return
    low = max(0, min(span.end for span in row.writing) - window) if window else 0
    places = row.slots[:count] - first
    if rows != count:
        asked = asked.new_zeros((rows, *asked.shape[1:])).index_copy_(0, places, asked)
    part = slice(first, first + rows), slice(None), slice(low, longest)
    mask = row.rows_mask(low, first, rows, longest, window).expand(rows, 1, groups, longest - low)
    found = scaled_dot_product_attention(asked, keys[part], values[part], attn_mask=mask, scale=scaling)
    found = found if rows == count else found[places]
    out[:count] = found.reshape(count, *out.shape[1:])


AttentionInterface.register(NAME, attend)
