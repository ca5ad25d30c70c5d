"""Where one step's time goes, measured off the clock: by part, by layer, and beside what the machine could do.

    {"decode": {"parts": {part: s}, "linear": {part: s of it in layers that multiply by a matrix},
                "calls": {part: operator calls}, "linear_calls": int, "layers": [s],
                "step_s", "hooked_step_s",          a step's median without hooks; the parts' sum, less the hooks' cost
                "hook_s",                           what the hooks of one call cost
                "weights_bytes", "head_bytes", "kv_bytes"     what a step must read, from the tensors themselves
                "flops"},
     "prefill": {the same; "tokens"},
     "bandwidth_bytes_per_s", "flops_per_s", "call_s"}        this machine's, see engine/yardstick.py

A compiled forward has no modules left to hook: its time is the part 'compiled'. On an asynchronous device nothing is
told, since every part would have to be waited for.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import Cache, DynamicCache

from backend.engine.decode import Decoder
from backend.engine.partclock import CountCalls, PartClock, Place
from backend.engine.wake import wake
from backend.engine.yardstick import call_cost, peak_flops, read_bandwidth
from backend.recipe.race import Sampling
from backend.techniques.base import DecodePlan, Subject
from backend.techniques.quantize.counting import layer_bytes, weight_bytes
from backend.techniques.quantize.layers import linear_like

STEPS, STEPS_S = 32, 3.0  # rounds of steps at most, and for how long at most a new one begins
PREFILLS, PREFILL_S = 8, 1.5  # the same of prefill
PLAIN_STEPS = 14
ROOM = 3 * max(STEPS, PLAIN_STEPS) + 5  # tokens that follow the prompt at most
WAKE_S = 0.03  # before each timed run: putting hooks on and off is a rest for the cores, which a step alone never has


def plain_step_s(subject: Subject, prompt: list[int]) -> float:
    """Median seconds of a one-token step without the proposer."""
    decoder = _decoder(subject, prompt)
    return statistics.median(_time(decoder.step) for _ in range(PLAIN_STEPS))


def breakdown(subject: Subject, prompt: list[int], share: float = 1.0) -> dict[str, Any]:
    """Everything above, or nothing on a device that computes asynchronously.

    Args:
        share: of the usual time, where a person wants to spend little.
    """
    if subject.device.type != "cpu":
        return {}
    decode, prefill = decode_parts(subject, prompt, share), prefill_parts(subject, prompt, share)
    return {
        "decode": decode,
        "prefill": prefill,
        "bandwidth_bytes_per_s": read_bandwidth(decode["weights_bytes"]),
        "flops_per_s": peak_flops(subject.model.dtype, max(16, min(512, len(prompt)))),
        "call_s": call_cost(),
    }


def decode_parts(subject: Subject, prompt: list[int], share: float = 1.0) -> dict[str, Any]:
    """One-token steps after the prompt, without a proposer."""
    clock = PartClock()
    decoder = _decoder(_watched(subject, clock), prompt)
    told = _in_turn(subject, clock, decoder.step, prompt[-1], STEPS, share * STEPS_S)
    return told | _must(subject, 1) | {"kv_bytes": decoder.kv_bytes}


def prefill_parts(subject: Subject, prompt: list[int], share: float = 1.0) -> dict[str, Any]:
    """The prompt in one call."""
    clock = PartClock()
    decoder = Decoder(_watched(subject, clock), Sampling(), seed=1)

    def read() -> object:
        return decoder.start(prompt, room=1)

    read()
    told = _in_turn(subject, clock, read, prompt[-1], PREFILLS, share * PREFILL_S)
    return told | _must(subject, len(prompt)) | {"kv_bytes": decoder.kv_bytes, "tokens": len(prompt)}


def _decoder(subject: Subject, prompt: list[int]) -> Decoder:
    """One that has read the prompt and has run a few steps."""
    decoder = Decoder(replace(subject, plan=replace(subject.plan, proposer=None)), Sampling(), seed=1)
    decoder.start(prompt, room=ROOM)
    for _ in range(3):
        decoder.step()
    return decoder


def _watched(subject: Subject, clock: PartClock) -> Subject:
    """The same subject whose caches and compiled forward tell a clock when they work; no proposer."""
    plan = subject.plan

    def make_cache(total: int) -> Cache:
        made = plan.make_cache(total) if plan.make_cache else DynamicCache(config=subject.model.config)
        return clock.watch_cache(made)

    forward = clock.timed(plan.forward, Place("compiled", False, None)) if plan.forward else None
    watched = DecodePlan(make_cache=make_cache, forward=forward, threads=plan.threads)
    return replace(subject, plan=watched)


def _in_turn(
    subject: Subject, clock: PartClock, work: Callable[[], object], token: int, most: int, limit_s: float
) -> dict[str, Any]:
    """Runs without hooks, with them, and with twice as many, in turn: the machine may change its pace, and so for all.

    What the second set of hooks adds is what the first costs where it is used; in a loop of its own, with all of it in
    the processor's caches, a hook costs half as much.
    """
    free: list[float] = []
    hooked: list[Counter[Place]] = []
    added: list[float] = []
    weights, until = weight_bytes(subject.model), time.perf_counter() + limit_s
    while not hooked or (len(hooked) < most and time.perf_counter() < until):
        wake(subject, weights, token, WAKE_S)
        free.append(_time(work))
        with clock.hooked(subject):
            wake(subject, weights, token, WAKE_S)
            hooked.append(_told(clock, work))
            with PartClock().hooked(subject):
                wake(subject, weights, token, WAKE_S)
                added.append(_time(work) - sum(hooked[-1].values()))
    with clock.hooked(subject):
        _count(clock, work)
    calls = sum(clock.ends.values()) / 2
    return _told_of(free, hooked, max(0.0, statistics.median(added)) / calls if calls else 0.0, clock)


def _time(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _told(clock: PartClock, work: Callable[[], object]) -> Counter[Place]:
    clock.start()
    work()
    return clock.stop()


def _count(clock: PartClock, work: Callable[[], object]) -> None:
    """Count operator calls in a run that is not timed. A compiled forward stays uncounted: it would be traced anew."""
    clock.start()
    with CountCalls(clock):
        work()


def _told_of(free: list[float], hooked: list[Counter[Place]], hook_s: float, clock: PartClock) -> dict[str, Any]:
    """Means over the middle half of the hooked runs, so that the parts still sum to the whole; less the hooks' cost."""
    ranked = sorted(hooked, key=lambda one: sum(one.values()))
    half_a_hook = hook_s / 2
    middle = ranked[len(ranked) // 4 : max(len(ranked) // 4 + 1, 3 * len(ranked) // 4)]
    parts: Counter[str] = Counter()
    linear: Counter[str] = Counter()
    layers: Counter[int] = Counter()
    for run in middle:
        for place, spent in run.items():
            own = max(0.0, spent - half_a_hook * clock.ends[place]) / len(middle)
            parts[place.part] += own  # type: ignore[assignment]
            if place.linear:
                linear[place.part] += own  # type: ignore[assignment]
            if place.layer is not None:
                layers[place.layer] += own  # type: ignore[assignment]
    calls: Counter[str] = Counter()
    for place, count in clock.calls.items():
        calls[place.part] += count
    return {
        "parts": dict(parts),
        "linear": dict(linear),
        "calls": dict(calls),
        "linear_calls": sum(count for place, count in clock.calls.items() if place.linear),
        "layers": [layers[number] for number in sorted(layers)],
        "step_s": statistics.median(free),
        "hooked_step_s": sum(parts.values()),
        "hook_s": hook_s,
    }


def _must(subject: Subject, tokens: int) -> dict[str, Any]:
    """Bytes that one call must read of the matrices, and floating-point operations that it must do with them."""
    head = subject.model.get_output_embeddings()
    matrices = [layer for layer in linear_like(subject.model).values() if layer is not head]
    flops = 2 * tokens * sum(_numbers(layer) for layer in matrices) + 2 * _numbers(head)  # the head reads one token
    head_bytes = layer_bytes(head) if head is not None else 0
    return {"weights_bytes": layer_bytes(*matrices) + head_bytes, "head_bytes": head_bytes, "flops": flops}


def _numbers(layer: nn.Module | None) -> int:
    multiplied = getattr(layer, "multiplied", None)  # of a layer that holds no zeros
    if isinstance(multiplied, int):
        return multiplied
    return int(getattr(layer, "in_features", 0)) * int(getattr(layer, "out_features", 0))
