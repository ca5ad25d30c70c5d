"""The witness: watches a warm lane prefill a few tokens and decode one, and says what was seen to run."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import Cache, DynamicCache

from backend.engine.busythreads import busy_threads
from backend.engine.decode import Decoder
from backend.techniques.base import Run, Subject
from backend.techniques.kernels import Heard, listen

PREFILL_TOKENS = 32


def witness(subject: Subject, decoder: Decoder, prompt: list[int]) -> Run:
    """Watch one prefill and one decode step; off every clock.

    Args:
        decoder: has begun a request and has room for one more token.
        prompt: its first tokens are the prefill's.
    """
    heard: list[Heard] = []

    def both() -> None:
        cache = _cache(subject, PREFILL_TOKENS + 2 + _width(subject))
        heard.append(listen(lambda: _call(subject.model, subject, prompt[:PREFILL_TOKENS], cache)))
        heard.append(listen(lambda: _step(subject, decoder, cache)))

    busy = busy_threads(both)
    prefill, decode = heard
    counts = decoder.speculation
    layers = list(cast(list[Any], decoder.cache.layers))
    return Run(
        cache=type(decoder.cache).__name__,
        cache_layers=tuple(type(layer).__name__ for layer in layers),
        slots=tuple(int(layer.keys.shape[-2]) for layer in layers if layer.is_initialized),
        tokens=len(decoder.ids) - 1,
        decode_kernels=decode.kernels,
        prefill_kernels=prefill.kernels,
        compiled_regions=decode.compiled_regions,
        busy_threads=busy,
        rounds=counts.rounds + counts.plain_rounds if counts else 0,
        drafted=counts.drafted if counts else 0,
    )


def _step(subject: Subject, decoder: Decoder, cache: Cache) -> None:
    """The decoder's own step; with a proposer the call that verifies, so that the draft's kernels are not heard."""
    width = _width(subject)
    if not width:
        decoder.step()
        return
    _call(subject.model, subject, decoder.ids[-1:] * (1 + width), cache)
    if subject.plan.forward is not None:  # rounds without a guess are one compiled token
        cache.crop(-width)
        _call(subject.plan.forward, subject, decoder.ids[-1:], cache)


@torch.inference_mode()
def _call(forward: Any, subject: Subject, ids: list[int], cache: Cache) -> None:
    inputs = torch.tensor([ids], device=subject.device)
    forward(input_ids=inputs, cache=cache, use_cache=True, logits_to_keep=1)


def _cache(subject: Subject, total: int) -> Cache:
    """An empty cache as the decoder makes it."""
    make = subject.plan.make_cache
    cache = make(total) if make else DynamicCache(config=subject.model.config)
    if subject.plan.proposer:
        cache.activate_past_recording()
    return cache


def _width(subject: Subject) -> int:
    return subject.plan.proposer.width if subject.plan.proposer else 0
