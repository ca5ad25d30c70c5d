"""A/A races: two lanes with the same recipe must come out equal, and the verdict must call it noise.

Every race has fresh processes, since where a process's memory lies is part of what can make equal lanes differ.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks._bench import ENGLISH, STORY, Bench, make_race


def main() -> None:
    """Print the ratio of every race; exit 1 when the median is off by 2% or noise is not called noise."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--races", type=int, default=20)
    parser.add_argument("--models", nargs="+", default=["storyteller", "gemma"])
    args = parser.parse_args()
    bench = Bench("fairness")
    for model in args.models:
        prompt = STORY if model == "storyteller" else ENGLISH
        measure = {"budget_s": 6.0 if model == "storyteller" else 15.0, "quality_tokens": 0, "questions": 0}
        ratios, noise = [], 0
        for number in range(args.races):
            view = bench.race(make_race(model, prompt, {}, max_new_tokens=16, measure=measure))
            speed = view.verdict["lanes"]["A"]["speed"]
            ratios.append(speed["ratio"])
            noise += speed["within_noise"]
            interval = f"{speed['low']:.4f} to {speed['high']:.4f}"
            word = "within noise" if speed["within_noise"] else "NOT within noise"
            print(f"        {model} race {number + 1}: {speed['ratio']:.4f} ({interval}), {word}", flush=True)
        bench.check(f"{model}: median ratio's distance from 1", abs(statistics.median(ratios) - 1), at_most=0.02)
        bench.check(f"{model}: races within noise of {args.races}", noise, at_least=args.races * 0.95)
    bench.end()


if __name__ == "__main__":
    main()
