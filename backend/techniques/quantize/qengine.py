"""The engine that packs and multiplies torch.ao's int8 matrices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

ENGINES = ("x86", "onednn", "fbgemm", "qnnpack")  # best first; x86 multiplies with fbgemm and holds a weight once


def best_engine() -> str | None:
    """The best engine that this torch has on this CPU, or None."""
    return next((name for name in ENGINES if name in torch.backends.quantized.supported_engines), None)


@contextmanager
def packing_for(engine: str) -> Iterator[None]:
    """Pack for one engine. A packed weight remembers its kernel, so the setting need not stay."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


@contextmanager
def deprecation_unsaid() -> Iterator[None]:
    """Hide the two warnings about torch.ao and quantized tensors that its users here answer, and no others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor, torch\.quantize_per_channel")
        yield
