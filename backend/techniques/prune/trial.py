"""The trial: a dense and a sparse layer take turns on this machine, and the faster one stays."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backend.techniques.prune.sparse_linear import SparseLinear

TURNS = 9  # of each in a decode step; the first is not counted
LONG_TURNS = 4
PREFILL_ROWS = 128
LONG_LAYERS = 4  # so many layers take part where a call is long
MOST_OFF = {torch.float32: 1e-4, torch.float64: 1e-8}  # of the output's norm
MOST_OFF_HALF = 2e-2


@dataclass(frozen=True)
class Trial:
    """How layers of one shape and about one share of zeros compare with themselves held sparse."""

    shape: str  # '2048 x 640'
    format: str
    zeros: float  # share, the mean of the layers
    decode: float  # times as fast as dense with one row
    prefill: float  # with PREFILL_ROWS rows

    @property
    def break_even(self) -> float:
        """The share of zeros at which a sparse row takes as long as a dense one, if its time goes with what is left."""
        return max(0.0, 1 - (1 - self.zeros) * self.decode)

    @property
    def words(self) -> str:
        """For a layer that stays dense."""
        return (
            f"{self.shape} with {self.zeros:.0%} zeros as {self.format}: {self.decode:.2f}x in decode, "
            f"{self.prefill:.2f}x in prefill; break-even at about {self.break_even:.0%} zeros"
        )


@torch.inference_mode()
def compare(dense: Sequence[nn.Linear], sparse: Sequence[SparseLinear], zeros: float) -> Trial:
    """Time both, one after the other over all layers, so that weights come from where they come from in a decode."""
    weight = dense[0].weight
    shape = f"{weight.shape[0]} x {weight.shape[1]}"
    decode = _ratio(dense, sparse, 1, TURNS)
    prefill = _ratio(dense[:LONG_LAYERS], sparse[:LONG_LAYERS], PREFILL_ROWS, LONG_TURNS)
    return Trial(shape, sparse[0].sparse_format, zeros, decode, prefill)


@torch.inference_mode()
def wrong(dense: nn.Linear, sparse: SparseLinear) -> str | None:
    """Compute one row and several with both; the reason why the sparse one cannot be used, or None."""
    for count in (1, 5):
        rows = _rows(dense, count)
        try:
            got = sparse(rows)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            text = str(error).strip().splitlines()
            return f"{sparse.sparse_format}: the kernel refuses it ({text[0][:120] if text else error!r})"
        want = dense(rows)
        off = float((got - want).float().norm() / want.float().norm().clamp_min(1e-12))
        if not off <= MOST_OFF.get(rows.dtype, MOST_OFF_HALF):  # also true of NaN
            return f"{sparse.sparse_format}: its result is off by {off:.1%}"
    return None


def _ratio(dense: Sequence[nn.Linear], sparse: Sequence[nn.Module], count: int, turns: int) -> float:
    """Seconds of the dense layers over those of the sparse ones: the median over turns, each pair on a machine of one
    mood."""
    rows = _rows(dense[0], count)
    ratios = []
    for turn in range(turns):
        if turn % 2:
            slow, fast = _seconds(dense, rows), _seconds(sparse, rows)
        else:
            fast, slow = _seconds(sparse, rows), _seconds(dense, rows)
        if turn:
            ratios.append(slow / fast)
    return statistics.median(ratios)


def _seconds(layers: Sequence[nn.Module], rows: Tensor) -> float:
    _settle(rows)
    began = time.perf_counter()
    for layer in layers:
        layer(rows)
    _settle(rows)
    return time.perf_counter() - began


def _settle(rows: Tensor) -> None:
    if rows.device.type == "cuda":
        torch.cuda.synchronize(rows.device)


def _rows(layer: nn.Linear, count: int) -> Tensor:
    weight, generator = layer.weight, torch.Generator().manual_seed(0)
    return torch.randn(count, weight.shape[1], generator=generator).to(weight.device, weight.dtype)
