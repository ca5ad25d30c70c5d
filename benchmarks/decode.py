"""Decoding at batch 1: the own loop against generate, the switches that must pay, and every way to guess beside plain
decoding and the library's assisted generation, on Gemma and the storyteller.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from backend.catalog import resolve
from backend.checks.docs import filled
from backend.engine.decode import Decoder
from backend.engine.load import load
from backend.engine.text import encode
from backend.hardware import hardware
from backend.metrics import paired_ratio
from backend.recipe.race import Sampling
from benchmarks._bench import ENGLISH, STORY, Bench, make_race
from benchmarks._speculation import Field

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


def stories(bench: Bench, rounds: int) -> str:
    """The storyteller telling a story: the shipped draft against the library's use of the same two models."""
    field = Field("storyteller", STORY, 128)
    draft = field.add({"draft_model": {}})
    longer = field.add({"draft_model": {"tokens": 8}})
    field.add({"draft_model": {"tokens": 8, "length": "adaptive"}})
    field.add({"draft_model": {"branches": 2}})
    field.add({"self_draft": {}})
    helper = load(resolve("storyteller-draft")).model
    theirs = field.add_generate("transformers, assisted, its own settings", assistant_model=helper)
    field.race(rounds)
    bench.check("stories, draft over plain", draft.over(field.ways[0]).ratio, at_least=1.5)
    bench.check("stories, draft of 8 over assisted generation", longer.over(theirs).ratio, at_least=1.1)
    bench.check("stories, draft, tokens equal of 128", equal(draft.text, field.ways[0].text), at_least=128)
    return f"**storyteller**, a story.\n\n{field.table()}"


def copies(bench: Bench, rounds: int) -> str:
    """Gemma going on with a text that repeats itself."""
    field = Field("gemma", REPEATING, 96)
    field.add({"prompt_lookup": {}})
    lookup = field.add({"prompt_lookup": {"tokens": 10}})
    field.add({"prompt_lookup": {"tokens": 10, "length": "adaptive"}})
    field.add_generate("transformers, prompt lookup of 10", prompt_lookup_num_tokens=10)
    field.race(rounds)
    bench.check("copying, prompt lookup of 10 over plain", lookup.over(field.ways[0]).ratio, at_least=2.0)
    return f"**Gemma**, a text that repeats itself.\n\n{field.table()}"


def its_own_draft(bench: Bench, rounds: int) -> str:
    """Gemma, which has no small sister, on text where most of these drafts fail."""
    field = Field("gemma", ENGLISH, 64)
    for switch in ({"keep": 6}, {"keep": 14, "which": "nearest"}, {"keep": 14, "which": "nearest", "cache": "own"}):
        field.add({"self_draft": switch})
    failing = [
        field.add({"self_draft": {"keep": 6, "length": "adaptive"}}),
        field.add({"self_draft": {"keep": 14, "which": "nearest", "length": "adaptive"}}),
        field.add({"prompt_lookup": {"length": "adaptive"}}),
    ]
    field.race(rounds)
    for way in failing:
        bench.check(f"English, {way.name} over plain", way.over(field.ways[0]).ratio, at_least=0.95)
    return f"**Gemma**, English that repeats nothing.\n\n{field.table()}"


def costly(bench: Bench, rounds: int) -> str:
    """A draft of six of eight layers: what it loses, and what stopping saves."""
    field = Field("storyteller", STORY, 128)
    field.add({"self_draft": {"keep": 6, "tokens": 8}})
    paced = field.add({"self_draft": {"keep": 6, "tokens": 8, "length": "adaptive"}})
    field.race(rounds)
    bench.check("costly draft, adaptive over plain", paced.over(field.ways[0]).ratio, at_least=0.95)
    return f"**storyteller**, a draft of six of its eight layers.\n\n{field.table()}"


def equal(ours: list[int], theirs: list[int]) -> int:
    """Tokens that are the same at their place."""
    return sum(one == other for one, other in zip(ours, theirs, strict=False))


def races(bench: Bench, _: int) -> str:
    """The races of switches that must pay."""
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
    return ""


GUESSES: dict[str, Callable[[Bench, int], str]] = {
    "stories": stories,
    "copies": copies,
    "own": its_own_draft,
    "costly": costly,
}
SECTIONS = {"races": races} | GUESSES


def about(rounds: int) -> str:
    """How it was measured."""
    machine, versions = hardware()["hardware"], hardware()["versions"]
    return (
        f"Tables by `python -m benchmarks.decode --into docs/decoding.md` on {machine['processor']}, "
        f"{machine['cores']} cores, torch {versions['torch']}, transformers {versions['transformers']}, fp32, greedy. "
        f"Whole requests, prefill included, all ways in turn on one live model, {rounds} rounds; **times plain** is "
        "paired, with its 95% interval. **Predicted** is what theory makes of the acceptance and costs seen; "
        "**equal** counts tokens that are plain decoding's."
    )


def main() -> None:
    """Print every ratio; exit 1 when one falls short of what the project promises."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=9, help="requests of each way that are counted")
    parser.add_argument("--into", type=Path, help="a Markdown file with places for the tables, docs/decoding.md")
    args = parser.parse_args()
    bench = Bench("decode")
    made = [section(bench, args.rounds) for name, section in SECTIONS.items() if name in args.only]
    tables = "\n\n".join(table for table in made if table)
    print(tables, flush=True)
    if args.into and tables:
        parts = {"decoding-about": about(args.rounds), "decoding-guesses": tables}
        args.into.write_text(filled(args.into.read_text(encoding="utf-8"), parts), encoding="utf-8")
    bench.end()


if __name__ == "__main__":
    main()
