"""Decoding at batch 1: the own loop against generate, and the switches that must pay, on Gemma and the storyteller."""

from __future__ import annotations

import time
from typing import Any

import torch

from backend.catalog import resolve
from backend.engine.decode import Decoder
from backend.engine.load import load
from backend.engine.text import encode
from backend.metrics import paired_ratio
from backend.recipe.race import Sampling
from benchmarks._bench import ENGLISH, STORY, Bench, make_race

REPEATING = (
    "The red lantern hangs in the old harbor. The blue key lies in the old mill. The red lantern hangs in the old "
    "harbor. The blue key lies in the old mill. The red lantern hangs in the old harbor. The blue key lies in"
)
TOKENS = 48


def own_loop_against_generate(bench: Bench) -> None:
    """Speed of the own loop over transformers' generate, in one process, in turn."""
    subject = load(resolve("gemma"))
    prompt = encode(subject, ENGLISH)
    inputs = torch.tensor([prompt])
    ours, theirs = [], []
    for turn in range(9):
        order = (_own, _generate) if turn % 2 else (_generate, _own)
        seconds = {work: work(subject, prompt, inputs) for work in order}
        if turn:
            ours.append(seconds[_own])
            theirs.append(seconds[_generate])
    ratio = paired_ratio(theirs, ours)
    bench.show("own loop over model.generate, fp32", ratio)
    bench.check("own loop over model.generate", ratio.ratio, at_least=1.0)


def _own(subject: Any, prompt: list[int], _: torch.Tensor) -> float:
    started = time.perf_counter()
    decoder = Decoder(subject, Sampling(), seed=1)
    decoder.start(prompt, room=TOKENS)
    for _ in range(TOKENS - 1):
        decoder.step()
    return time.perf_counter() - started


def _generate(subject: Any, _: list[int], inputs: torch.Tensor) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        subject.model.generate(inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
    return time.perf_counter() - started


def raced(bench: Bench, model: str, prompt: str, *variants: dict[str, Any], budget_s: float = 30.0) -> list[dict]:
    """One race; its verdict entries of the variants, with each speed ratio printed."""
    measure = {"budget_s": budget_s, "quality_tokens": 0, "questions": 0}
    view = bench.race(make_race(model, prompt, *variants, max_new_tokens=128, measure=measure))
    entries = [view.verdict["lanes"][lane.name] for lane in view.variants]
    for entry in entries:
        speed = entry["speed"]
        interval = f"({speed['low']:.3f} to {speed['high']:.3f}, {speed['pairs']} pairs)"
        kld = f", KLD {entry['kld']['mean']:.4f}" if "kld" in entry else ""
        print(f"        {model}, {entry['label']}: {speed['ratio']:.3f} {interval}{kld}", flush=True)
    return entries


def main() -> None:
    """Print every ratio; exit 1 when one falls short of what the project promises."""
    bench = Bench("decode")
    own_loop_against_generate(bench)
    eight, four = raced(
        bench, "gemma", ENGLISH, {"int8_weight_only": {}}, {"int4_weight_only": {"group_size": 32, "head": "int4"}}
    )
    bench.check("Gemma int8 weights over fp32", eight["speed"]["ratio"], at_least=1.5)
    bench.check("Gemma int8 weights, mean KLD", eight["kld"]["mean"], at_most=0.01)
    bench.check("Gemma int4 weights over fp32", four["speed"]["ratio"], at_least=2.2)
    eight, draft = raced(bench, "storyteller", STORY, {"int8_weight_only": {}}, {"draft_model": {}}, budget_s=15.0)
    bench.check("storyteller int8 weights over fp32", eight["speed"]["ratio"], at_least=1.3)
    bench.check("storyteller draft over plain", draft["speed"]["ratio"], at_least=1.3)
    bench.check("storyteller draft, tokens equal of 128", draft["identical_tokens"], at_least=128)
    (lookup,) = raced(bench, "gemma", REPEATING, {"prompt_lookup": {}})
    bench.check("Gemma prompt lookup on repeating text over plain", lookup["speed"]["ratio"], at_least=1.3)
    bench.check("Gemma prompt lookup, tokens equal of 128", lookup["identical_tokens"], at_least=128)
    bench.end()


if __name__ == "__main__":
    main()
