"""Operators: one run under torch's profiler, off every clock, as a table and as a Chrome trace."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from backend.engine.decode import Decoder
from backend.recipe.race import Sampling
from backend.techniques.base import Subject

STEPS = 8
WARM_STEPS = 3
MOST_ROWS = 80


def profiled(
    subject: Subject, sampling: Sampling, seed: int, prompt: list[int], shape: str, trace: Path
) -> dict[str, Any]:
    """Run the prompt ('prefill') or some steps after it ('decode', a proposer's rounds as they are) under the profiler.

    Its cost a call lengthens small operators: shares are near the truth, sums are not, so the time of the same run
    without it stands beside.

    Returns:
        `rows` (name, calls, self_s, total_s; the longest first, the rest as one row), `runs`, `profiled_s` and
        `plain_s` of all runs, `trace` the file's name and `trace_bytes`.
    """
    decoder = Decoder(subject, sampling, seed)
    runs = STEPS if shape == "decode" else 1
    room = 8 * (2 * STEPS + WARM_STEPS)  # a round of guesses may give several tokens

    def run() -> float:
        started = time.perf_counter()
        for _ in range(runs):
            if shape == "decode":
                decoder.step()
            else:
                decoder.start(prompt, room)
        return time.perf_counter() - started

    decoder.start(prompt, room)
    for _ in range(WARM_STEPS):
        decoder.step()
    plain_s = run()
    activities = [ProfilerActivity.CPU]
    if subject.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        profiled_s = run()
    profiler.export_chrome_trace(str(trace))
    return {
        "rows": _rows(profiler.key_averages(), subject.device.type == "cuda"),
        "runs": runs,
        "profiled_s": profiled_s,
        "plain_s": plain_s,
        "trace": trace.name,
        "trace_bytes": trace.stat().st_size,
    }


def _rows(averages: Any, on_device: bool) -> list[list[Any]]:
    """[name, calls, self_s, total_s], at most MOST_ROWS of them and one for the rest."""
    rows = []
    for one in averages:
        own = one.self_device_time_total if on_device else one.self_cpu_time_total
        total = one.device_time_total if on_device else one.cpu_time_total
        if own > 0:
            rows.append([str(one.key)[:120], int(one.count), own / 1e6, total / 1e6])  # from microseconds
    rows.sort(key=lambda row: -row[2])
    rest = rows[MOST_ROWS:]
    if rest:
        spent = sum(row[2] for row in rest)
        rows = [*rows[:MOST_ROWS], [f"{len(rest)} others", sum(row[1] for row in rest), spent, spent]]
    return rows
