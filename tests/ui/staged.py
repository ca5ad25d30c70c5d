"""A race that never ran: its events in the shapes of backend/replay.py, for tests of what shows them.

`python tests/ui/staged.py SECONDS` plays one into the journal of HEADWAY_HOME at its own pace, to look at.
"""

from __future__ import annotations

import math
import os
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from backend.journal import Journal
from backend.recipe.race import Race
from backend.replay import RaceView
from backend.verdict import build_verdict

Told = tuple[str, str | None, dict[str, Any]]
STEP_S = {"base": 0.0071, "A": 0.0041, "B": 0.0088}
WEIGHTS = {"base": 103e6, "A": 36e6, "B": 103e6}
WORDS = re.split(" ", "Anna took the lantern and went to the market. Ben was there. It is <b>red</b> & *warm*. ")

PROTOCOL = {"context": 256, "stride": 256, "tokens": 1023, "source": "held-out stories", "call": "whole window"}


def race(tokens: int = 128) -> Race:
    """Three lanes on the storyteller."""
    return Race.read(
        {
            "model": "storyteller",
            "prompt": "Once there was a red lantern in the harbor.",
            "max_new_tokens": tokens,
            "variants": [
                {"switches": {"int8_weight_only": {}, "draft_model": {}}},
                {"switches": {"magnitude": {"ratio": 0.5}}},
            ],
        }
    )


def effect(kind: str, summary: str, simulated: bool = False) -> dict[str, Any]:
    skipped = [{"layer": f"model.layers.{n}.norm", "reason": "norms stay fp32, by design"} for n in range(8)]
    return {
        "kind": kind,
        "took_effect": True,
        "summary": summary,
        "facts": {},
        "skipped": [] if simulated else skipped,
        "simulated": simulated,
    }


EFFECTS = {
    "base": [],
    "A": [effect("int8_weight_only", "57 layers int8 weight-only, head int8")],
    "B": [effect("magnitude", "50% of 57 matrices are zero", simulated=True)],
}
LABELS = {"base": "unchanged", "A": "int8 weights, draft", "B": "50% zeros"}


def memory(lane: str, tokens: int) -> dict[str, Any]:
    held = {"weights_bytes": WEIGHTS[lane], "kv_bytes": tokens * 32768, "other_bytes": 12e6}
    return held | {"resident_bytes": 4e8, "peak_bytes": 4.2e8, "device_peak_bytes": None}


def opening(tokens: int) -> Iterator[list[Told]]:
    for done in (0, 1, 2, 3):
        yield [("phase", None, {"name": "loading", "done": done, "total": 3, "eta_s": 3.0 - done, "text": "weights"})]
    machine = {"versions": {"torch": "2.13.0"}, "hardware": {"cores": 2}}
    yield [("opened", None, machine | {"lanes": LABELS, "prompt_tokens": 11, "scored": True})]
    for lane in LABELS:
        ready = {"label": LABELS[lane], "parameters": 25_700_000, "memory": memory(lane, 0)}
        yield [("ready", lane, ready | {"receipt": {"effects": EFFECTS[lane], "weights_bytes": WEIGHTS[lane]}})]


def racing(tokens: int) -> Iterator[list[Told]]:
    dice = random.Random(7)
    done = dict.fromkeys(LABELS, 0)
    clocks = dict.fromkeys(LABELS, 0.02)
    while min(done.values()) < tokens:
        lane = min((name for name in done if done[name] < tokens), key=lambda name: clocks[name])
        start, count = done[lane], min(tokens - done[lane], max(1, round(0.1 / STEP_S[lane])))
        ids = [n % 97 + (1000 if lane == "B" and n >= 40 and n % 3 else 0) for n in range(start, start + count)]
        clock = [clocks[lane] + STEP_S[lane] * (n + 1) for n in range(count)]
        drafted = [int(lane == "A" and n % 5 != 0) for n in range(count)]
        texts = [f"{WORDS[n % len(WORDS)]} " for n in range(start, start + count)]
        done[lane], clocks[lane] = start + count, clock[-1]
        told: list[Told] = [
            ("tokens", lane, {"start": start, "ids": ids, "texts": texts, "clock": clock, "drafted": drafted}),
            ("memory", lane, memory(lane, done[lane])),
        ]
        if lane == "base":
            for name, level in (("A", 0.004), ("B", 0.08)):
                kld = [level * math.exp(dice.gauss(0, 1)) for _ in range(count)]
                scores = {"shape": "decode", "start": start, "kld": kld, "top1": [int(k < 0.2) for k in kld]}
                scores["top5"] = [1.0 if k < 0.2 else 0.6 for k in kld]
                told.append(("scores", name, scores | {"delta_logp": [-k for k in kld]}))
        left = (tokens - min(done.values())) * 0.03
        told.append(("phase", None, {"name": "racing", "done": min(done.values()), "total": tokens, "eta_s": left}))
        yield told


def broken_down(step_s: float, weights_bytes: float) -> dict[str, Any]:
    """Where a step's time went: two thirds in matrices, the rest in attention, norms and Python."""
    parts = {"attention": 0.3, "feed_forward": 0.5, "norm": 0.05, "sampling": 0.05, "python": 0.1}
    one = {
        "parts": {part: share * step_s for part, share in parts.items()},
        "linear": {"attention": 0.2 * step_s, "feed_forward": 0.45 * step_s},
        "calls": dict.fromkeys(parts, 40),
        "linear_calls": 57,
        "layers": [step_s / 8] * 8,
        "step_s": step_s,
        "hooked_step_s": step_s,
        "weights_bytes": weights_bytes,
        "head_bytes": 0,
        "kv_bytes": 4_000_000,
        "flops": 50e6,
    }
    machine = {"bandwidth_bytes_per_s": 30e9, "flops_per_s": 100e9, "call_s": 5e-6}
    return machine | {"decode": one, "prefill": one | {"tokens": 11, "flops": 550e6}}


def spot(place: int, kld: float) -> dict[str, Any]:
    """A worst token whose texts would be markup if anything read them as such."""
    base = [{"token": 7, "text": "<b>red</b>", "p": 0.6}, {"token": 8, "text": "\n", "p": 0.1}]
    variant = [{"token": 9, "text": " **blue**", "p": 0.5}, {"token": 7, "text": "<b>red</b>", "p": 0.2}]
    told = {"place": place, "before": "It is $x^2$ & *warm*", "token": 7, "text": "<b>red</b>", "kld": kld}
    return told | {"base_p": 0.6, "variant_p": 0.2, "base": base, "variant": variant}


def measuring(view: RaceView, order: Race) -> Iterator[list[Told]]:
    for lane, value in (("base", 2.31), ("A", 2.33), ("B", 2.9)):
        figures = {
            "value": value,
            "sums": [512 * math.log(value) - 3, 511 * math.log(value) + 3],
            "counts": [512, 511],
            "done": 2,
            "total": 2,
        }
        yield [("perplexity", lane, figures | {"protocol": PROTOCOL})]
        marks = [1] * 22 + [0, 0] if lane != "B" else [1] * 12 + [0] * 12
        yield [
            ("answers", lane, {"right": sum(marks), "asked": 24, "marks": marks, "by_kind": {}, "protocol": "exact"})
        ]
        if lane != "base":
            yield [("worst", lane, {"decode": [spot(at, 2.5 - at) for at in range(3)], "prefill": []})]
        yield [("breakdown", lane, {"plain_step_s": STEP_S[lane]} | broken_down(STEP_S[lane], WEIGHTS[lane]))]
    dice = random.Random(3)
    for turn in range(1, 9):
        for place, lane in enumerate(LABELS):
            step = STEP_S[lane] * (1 + dice.gauss(0, 0.01))
            emitted = [0.02 + step * n for n in range(48)]
            data = {"round": turn, "order": place, "ttft_s": 0.02, "emitted_s": emitted, "output_tokens": 48}
            yield [("request", lane, data)]
        yield [("phase", None, {"name": "measuring", "done": turn, "total": 8, "eta_s": 8.0 - turn})]


def play(journal: Journal, job: int, order: Race, pause_s: float = 0.0, until: str = "finished") -> RaceView:
    """Write the race into the journal; `until` is its last state, 'running' to leave it open."""
    view, tokens = RaceView(), order.max_new_tokens

    def write(*told: Told) -> None:
        journal.append(job, list(told))
        view.apply_all(journal.events(job, view.last_id))
        time.sleep(pause_s)

    for told in opening(tokens):
        write(*told)
    for number, told in enumerate(racing(tokens)):
        write(*told)
        if until != "finished" and number > 12:
            break
    if until == "finished":
        for told in measuring(view, order):
            write(*told)
        write(("verdict", None, build_verdict(view, order)))
    if until == "failed":
        failure = {"cause": "killed", "detail": "signal 9", "remedy": "Race again.", "phase": "racing"}
        write(("lane_failed", "B", failure))
        write(("failed", None, {"card": {"field": "race", "value": "x", "allowed": "y", "remedy": "z"}}))
    if until != "running":
        if until != "failed":
            write((until, None, {"wall_s": 12.3}))
        journal.finish(job, until)
    return view


if __name__ == "__main__":
    with Journal() as kept:
        seconds = float(sys.argv[1])
        while True:
            kept.beat("staged", os.getpid())
            if claimed := kept.claim("staged", "race"):
                play(kept, claimed.id, Race.read(claimed.spec), pause_s=seconds)
            time.sleep(0.2)
