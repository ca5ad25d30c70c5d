"""Attention kernels beside each other on one live model, and what windows and sinks leave of a text as it goes on."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from backend.catalog import resolve
from backend.checks.docs import filled
from backend.engine.contexts import Contexts
from backend.engine.decode import Decoder
from backend.engine.load import load
from backend.engine.memory import MemoryMeter
from backend.engine.text import encode
from backend.hardware import hardware
from backend.metrics import paired_ratio
from backend.recipe.race import Sampling
from backend.recipe.recipe import Recipe
from backend.recipe.switches.attention import AttentionKernel
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back
from backend.texts import held_out_text
from benchmarks._bench import STORY, Bench

KERNELS = ("sdpa", "sdpa_flash", "sdpa_math", "eager")  # what every CPU has; the first is what the others are held to
STEPS = 32
LONGEST = {"storyteller": 1024, "gemma": 2048}
WINDOWS = ({"window": 256}, {"window": 256, "sinks": 4})


def kernels(bench: Bench, rounds: int) -> str:
    """A prompt of half the model's context and steps after it, by every kernel in turn."""
    return "\n\n".join(_kernels_of(bench, model, rounds) for model in LONGEST)


def _kernels_of(bench: Bench, model: str, rounds: int) -> str:
    subject, ids = loaded(model)
    prompt = ids[: LONGEST[model] // 2]
    prefill: dict[str, list[float]] = {name: [] for name in KERNELS}
    steps: dict[str, list[float]] = {name: [] for name in KERNELS}
    ran: dict[str, str] = {}
    for turn in range(rounds + 1):
        shift = turn % len(KERNELS)
        for name in KERNELS[shift:] + KERNELS[:shift]:
            switch = AttentionKernel.read({"name": name})
            apply_switch(subject, switch)
            ran[name] = str(read_back(subject, switch).facts["ran"])
            first_s, step_s = _timed(subject, prompt)
            if turn:
                prefill[name].append(first_s)
                steps[name].append(step_s)
    rows = [f"**{model}**, {len(prompt)} tokens and {STEPS} steps.\n"]
    rows += ["| kernel | ran as | prefill, times sdpa | steps, times sdpa |", "| --- | --- | ---: | ---: |"]
    for name in KERNELS[1:]:
        ratios = [paired_ratio(times["sdpa"], times[name]) for times in (prefill, steps)]
        told = [f"{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})" for ratio in ratios]
        rows.append(f"| `{name}` | {ran[name]} | {' | '.join(told)} |")
        if name == "sdpa_flash":  # what sdpa takes by itself here, so that only the choosing is between them
            bench.check(f"{model}, a chosen backend's steps over sdpa's", ratios[1].ratio, at_least=0.95)
    return "\n".join(rows)


def _timed(subject: Subject, prompt: list[int]) -> tuple[float, float]:
    """Seconds of the prompt, and of the steps after it."""
    decoder = Decoder(subject, Sampling(), seed=1)
    started = time.perf_counter()
    decoder.start(prompt, room=STEPS + 1)
    first = time.perf_counter()
    for _ in range(STEPS):
        decoder.step()
    return first - started, time.perf_counter() - first


def windows(bench: Bench, _: int) -> str:
    """Loss by position: a full cache, a window, and a window with sinks."""
    return "\n\n".join(_windows_of(bench, model) for model in LONGEST)


def _windows_of(bench: Bench, model: str) -> str:
    subject, ids = loaded(model)
    caches = [{"switches": {"window_cache": window}} for window in WINDOWS]
    contexts = Contexts(subject, ids, MemoryMeter())
    race = {"model": model, "prompt": STORY, "variants": [{}]}
    start = contexts.context_start({"race": race, "longest": LONGEST[model], "caches": caches})
    labels = [Recipe.read(cache).label for cache in caches]
    rows = [f"**{model}**, loss in nats a token.\n", f"| position | full cache | {' | '.join(labels)} |"]
    rows.append(f"| ---: | ---: |{' ---: |' * len(labels)}")
    for length in start["lengths"]:
        point = contexts.context_quality(length)
        losses = [point["loss"], *(cache["loss"] for cache in point["caches"])]
        rows.append(f"| {length:,} | {' | '.join(f'{loss:.3f}' for loss in losses)} |")
    plain, mended = (cache["kld"] for cache in point["caches"])
    if model == "gemma":  # the storyteller rests on no token: both windows lose as little there
        bench.check("Gemma, KLD of sinks over that of a plain window at the end", mended / plain, at_most=0.6)
    return "\n".join(rows)


def loaded(model: str) -> tuple[Subject, list[int]]:
    """The model in full precision, and held-out text of its kind."""
    ref = resolve(model)
    subject = load(ref)
    subject.model.to(torch.float32)
    return subject, encode(subject, held_out_text(ref).text[: 8 * 4096])


SECTIONS: dict[str, Callable[[Bench, int], str]] = {"kernels": kernels, "windows": windows}


def about(rounds: int) -> str:
    """How it was measured."""
    machine, versions = hardware()["hardware"], hardware()["versions"]
    return (
        f"Tables by `python -m benchmarks.attention --into docs/attention.md` on {machine['processor']}, "
        f"{machine['cores']} cores, torch {versions['torch']}, transformers {versions['transformers']}, fp32. Kernels: "
        f"all in turn on one live model, {rounds} rounds, paired, with 95% intervals. Windows: the text is read in "
        "calls of at most 256 tokens, and the last 64 before each position are scored one a call."
    )


def main() -> None:
    """Print every table; exit 1 when a figure falls short of what the project promises."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=9, help="turns of each kernel that are counted")
    parser.add_argument("--into", type=Path, help="a Markdown file with places for the tables, docs/attention.md")
    args = parser.parse_args()
    bench = Bench("attention")
    made = {f"attention-{name}": SECTIONS[name](bench, args.rounds) for name in args.only}
    print("\n\n".join(made.values()), flush=True)
    if args.into:
        parts: dict[str, Any] = {"attention-about": about(args.rounds), **made}
        args.into.write_text(filled(args.into.read_text(encoding="utf-8"), parts), encoding="utf-8")
    bench.end()


if __name__ == "__main__":
    main()
