"""Where one step's time goes, as far as the race's one sentence needs it: measured off the clock with hooks."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

from torch import nn

from backend.engine.decode import Decoder
from backend.recipe.race import Sampling
from backend.techniques.base import Subject

STEPS = 12


def _plain(subject: Subject) -> Subject:
    return replace(subject, plan=replace(subject.plan, proposer=None))


def _step_times(subject: Subject, prompt: list[int]) -> list[float]:
    decoder = Decoder(_plain(subject), Sampling(), seed=1)
    decoder.start(prompt, room=STEPS + 3)
    times = []
    for _ in range(STEPS + 2):
        started = time.perf_counter()
        decoder.step()
        times.append(time.perf_counter() - started)
    return times[2:]


def plain_step_s(subject: Subject, prompt: list[int]) -> float:
    """Median seconds of a one-token step without the proposer."""
    return statistics.median(_step_times(subject, prompt))


def linear_share(subject: Subject, prompt: list[int]) -> float | None:
    """Share of a one-token step spent in layers that multiply by a weight matrix; None where it cannot be seen.

    Hooks around each such layer read the clock, which costs about a microsecond a layer; a compiled forward has no
    layers left to hook, and an asynchronous device would have to be stopped at each.
    """
    if subject.plan.forward is not None or subject.device.type != "cpu":
        return None
    spent = [0.0]
    began = [0.0]

    def before(_: nn.Module, __: Any) -> None:
        began[0] = time.perf_counter()

    def after(_: nn.Module, __: Any, ___: Any) -> None:
        spent[0] += time.perf_counter() - began[0]

    handles = []
    for module in subject.model.modules():
        if hasattr(module, "in_features") and not list(module.children()):
            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        decoder = Decoder(_plain(subject), Sampling(), seed=1)
        decoder.start(prompt, room=STEPS)
        spent[0] = 0.0
        started = time.perf_counter()
        for _ in range(STEPS):
            decoder.step()
        return spent[0] / (time.perf_counter() - started)
    finally:
        for handle in handles:
            handle.remove()
