"""Waking: cores that rest come back to their speed step by step, and what rests leaves the processor's caches."""

from __future__ import annotations

import time

import torch

from backend.techniques.base import Subject

CACHED_BYTES = 256 * 2**20  # about what the last-level cache of a large server holds


@torch.inference_mode()
def wake(subject: Subject, weights_bytes: int, token: int, seconds: float) -> None:
    """Run one token for so long, off every clock and without a cache.

    A small model's weights have left the processor's caches after a rest, and its cores have slowed down. A model that
    no cache holds has nothing to bring back.
    """
    if weights_bytes >= CACHED_BYTES:
        return
    ids = torch.tensor([[token]], device=subject.device)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        subject.model(input_ids=ids, use_cache=False)
