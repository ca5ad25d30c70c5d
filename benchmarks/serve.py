"""Serving, measured: continuous batching against static and against transformers' own, and latency at 80% load.

    python -m benchmarks.serve                 # the storyteller
    python -m benchmarks.serve --model gemma
    python -m benchmarks.serve --rounds 1 --requests 12    # a short look
    python -m benchmarks.serve --into docs/serving.md      # writes the table, too

Every round serves the same load on both lanes in turns, with another seed; figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from backend.catalog import resolve
from backend.checks.docs import filled
from backend.hardware import hardware
from backend.journal import Journal
from backend.recipe.serving import Serving
from backend.serveway import Serveway
from backend.serving.arrivals import all_arrivals
from backend.serving.view import ServingView
from benchmarks._bench import Bench

SLOTS = 8
HEAD = ("| what | measured | bound |", "| --- | --- | --- |")
LEAST_OF_STATIC, LEAST_OF_THEIRS = 1.8, 1.0
LOADED = 0.8  # of the requests a second that continuous batching gets through


class Told(Bench):
    """Keeps every figure as a row of a table."""

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.rows: list[str] = []

    def check(self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """Print, and keep with its bound."""
        super().check(name, value, at_least=at_least, at_most=at_most)
        bound = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
        self.rows.append(f"| {name} | {value:.3g} | {bound} |")

    def tell(self, name: str, value: float) -> None:
        """Print and keep what no bound is asked of."""
        print(f"        {name}: {value:.3g}", flush=True)
        self.rows.append(f"| {name} | {value:.3g} | |")


def serve(bench: Bench, spec: dict[str, Any]) -> ServingView:
    """One load on its lanes, with no page."""
    asked = Serving.read(spec)
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        job = journal.submit("serve", asked.model_dump(mode="json"))
        journal.claim("benchmark", "serve")
        with Serveway(journal, job, asked, bench.executor, beat=lambda: None).running() as way:
            way.run()
            return way.served


def theirs(model: str, load: dict[str, Any], seed: int) -> float | None:
    """Tokens a second of transformers' `generate_batch` on the same lengths; None where it does not run here."""
    asked = Serving.read({"model": model, "load": load, "seed": seed})
    path = resolve(model).path
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()
    vocab = loaded.config.get_text_config().vocab_size
    rows = all_arrivals(asked.load, seed)
    prompts = [torch.randint(1, vocab, (one.prompt_tokens,)).tolist() for one in rows]
    most = statistics.mean(one.output_tokens for one in rows)
    config = GenerationConfig(max_new_tokens=round(most), do_sample=False, eos_token_id=-1, max_batch_tokens=256)
    try:
        started = time.perf_counter()
        found = loaded.generate_batch(inputs=prompts, generation_config=config)
        spent = time.perf_counter() - started
    except Exception as error:  # it has no CPU path in every version: then there is nothing to compare with
        print(f"  generate_batch does not run here: {type(error).__name__}: {str(error)[:200]}")
        return None
    written = sum(len(one.generated_tokens) for one in found.values())
    return written / spent if written else None


def throughput(bench: Told, model: str, requests: int, rounds: int) -> float:
    """A burst: who is through first? Returns the requests a second of continuous batching."""
    load = {"requests": requests, "burst": requests, "output_min": 16, "output_max": 256}
    ratios, speeds, rates, gains = [], [], [], []
    for seed in range(1, rounds + 1):
        lanes = {"baseline": {"limits": {"batching": "static", "slots": SLOTS}}}
        spec = {"model": model, "load": load, "seed": seed, "check_alone": 4 if seed == 1 else 0, **lanes}
        spec["variants"] = [{"limits": {"slots": SLOTS}}, {"limits": {"slots": SLOTS, "batching": "shrinking"}}]
        view = serve(bench, spec)
        found = (view.verdict or {})["lanes"]
        ratios.append(found["A"]["tokens_per_s"] / found["base"]["tokens_per_s"])
        gains.append(found["A"]["tokens_per_s"] / found["B"]["tokens_per_s"])
        speeds.append(found["A"]["tokens_per_s"])
        rates.append(found["A"]["requests_per_s"])
        if seed == 1:
            same = [one["same"] for lane in view.lanes.values() for one in lane.alone]
            bench.check("share of answers that are those written alone", sum(same) / len(same), at_least=1.0)
    bench.check("continuous, of static's throughput", statistics.median(ratios), at_least=LEAST_OF_STATIC)
    bench.tell("continuous, of a static batch's that computes no row that has ended", statistics.median(gains))
    if other := theirs(model, load, 1):
        bench.check("continuous, of generate_batch's", statistics.median(speeds) / other, at_least=LEAST_OF_THEIRS)
    return statistics.median(rates)


def loaded(bench: Told, model: str, requests: int, rounds: int, rate: float) -> None:
    """Requests at random at 80% of what continuous batching gets through: how long does the unluckiest wait?"""
    load = {"arrivals": "poisson", "requests": requests, "rate_per_s": LOADED * rate}
    ratios, longest = [], []
    for seed in range(1, rounds + 1):
        lanes = {"baseline": {"limits": {"batching": "static", "slots": SLOTS}}}
        spec = {"model": model, "load": load, "seed": seed, "check_alone": 0, **lanes}
        view = serve(bench, spec | {"variants": [{"limits": {"slots": SLOTS}}]})
        found = (view.verdict or {})["lanes"]
        ratios.append(found["A"]["ttft_p99_s"] / found["base"]["ttft_p99_s"])
        longest.append(len(view.lanes["A"].ended))
    bench.check("p99 TTFT at 80% load, of static's", statistics.median(ratios), at_most=1.0)
    bench.check("requests that were answered, at least", min(longest), at_least=requests)


def about(asked: argparse.Namespace) -> str:
    """How it was measured."""
    machine, versions = hardware()["hardware"], hardware()["versions"]
    return (
        f"Written by `python -m benchmarks.serve --into docs/serving.md` on {machine['processor']}, "
        f"{machine['cores']} cores, torch {versions['torch']}, transformers {versions['transformers']}: {asked.model} "
        f"in fp32, {SLOTS} slots, {asked.requests} requests with prompts of 16 to 128 tokens and answers of 16 to 256, "
        f"all at once or at random at {LOADED:.0%} of what gets through; medians over {asked.rounds} loads."
    )


def main() -> int:
    """Measure and print; the exit code says whether all bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="storyteller")
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--into", type=Path, help="a Markdown file with places for the table, docs/serving.md")
    asked = parser.parse_args()
    bench = Told(f"serving {asked.model}")
    rate = throughput(bench, asked.model, asked.requests, asked.rounds)
    loaded(bench, asked.model, asked.requests, asked.rounds, rate)
    if asked.into:
        parts = {"serving-about": about(asked), "serving-measured": "\n".join((*HEAD, *bench.rows))}
        asked.into.write_text(filled(asked.into.read_text(encoding="utf-8"), parts), encoding="utf-8")
    return int(bench.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
