"""What the measurement must reach: equal lanes are called equal, and a lane that is 3% slower is found.

Every race has fresh processes, since where a process's memory lies is part of what makes equal lanes differ. The
slower lane is the same model with a wait of 3% behind every step (benchmarks/_heldup.py).
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from backend.executors.local import LocalExecutor
from benchmarks import _heldup
from benchmarks._bench import ENGLISH, STORY, Bench, make_race

BUDGET_S = 60.0
EQUAL_BUDGET_S = 12.0  # the Bench's own
TOKENS = 24  # a request: a host's speed wanders from one half second to the next, so short pairs tell more


def main() -> None:
    """Print every verdict; exit 1 when too few equal lanes are within noise or too few slower ones are found."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=40, help="races of equal lanes; half as many have a slower lane")
    parser.add_argument("--models", nargs="+", default=["storyteller"])
    parser.add_argument("--share", type=float, default=0.03, help="by which a lane is made slower")
    args = parser.parse_args()
    bench = Bench("measurement")
    bench.executor = LocalExecutor(preload=[_heldup.__name__])
    for model in args.models:
        held = {"held_up": {"share": args.share}}
        slower = [run(bench, model, "slower lane", held, BUDGET_S) for _ in range(max(1, args.runs // 2))]
        equal = [run(bench, model, "equal lanes", {}, EQUAL_BUDGET_S) for _ in range(args.runs)]
        noise = sum(speed["within_noise"] for speed in equal)
        found = sum(not speed["within_noise"] and speed["ratio"] < 1 for speed in slower)
        bench.check(f"{model}: equal lanes within noise of {len(equal)}", noise, at_least=0.95 * len(equal))
        bench.check(f"{model}: slower lanes found of {len(slower)}", found, at_least=0.9 * len(slower))
        for name, speeds in (("equal", equal), ("slower", slower)):
            ratios = sorted(speed["ratio"] for speed in speeds)
            print(f"        {model}, {name}: {ratios[0]:.4f}, {statistics.median(ratios):.4f}, {ratios[-1]:.4f}")
    bench.end()


def run(bench: Bench, model: str, name: str, switches: dict[str, Any], budget_s: float) -> dict[str, Any]:
    """One race with nothing but its measurement; prints and returns the paired ratio."""
    prompt = STORY if model == "storyteller" else ENGLISH
    measure = {"budget_s": budget_s, "tokens": TOKENS, "quality_tokens": 0, "questions": 0}
    verdict = bench.race(make_race(model, prompt, switches, max_new_tokens=16, measure=measure)).verdict
    speed: dict[str, Any] = verdict["lanes"]["A"]["speed"]
    seen = verdict["measurement"]
    said = "within noise" if speed["within_noise"] else "NOT within noise"
    doubts = f"; {' '.join(verdict['suspicions'])}" if verdict["suspicions"] else ""
    print(
        f"        {model}, {name}: {speed['ratio']:.4f} ({speed['low']:.4f} to {speed['high']:.4f}), {said}, "
        f"{seen['rounds']} rounds less {seen['left_out']} in {seen['seconds']:.1f} s{doubts}",
        flush=True,
    )
    return speed


if __name__ == "__main__":
    main()
