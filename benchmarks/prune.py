"""Pruning on real models: what each ranking is worth, what really gets faster, and which metric tells of it.

Parts that are taken out first, then single weights set to zero, in dense matrices and without their zeros.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from backend.checks.docs import filled
from backend.hardware import hardware
from benchmarks._bench import Bench
from benchmarks._sparsity import (
    decode_section,
    judge_quality,
    kernel_section,
    kernel_trials,
    quality_rows,
    quality_section,
    shapes_of,
)
from benchmarks._structured import Text, layers_section, rankings_section, speed_section

PARTS = {"rankings": rankings_section, "speed": speed_section, "layers": layers_section}
WEIGHTS = ("zeros", "kernels", "decode")
SECTIONS = (*PARTS, *WEIGHTS)


def main() -> None:
    """Print the tables; exit 1 when a bound is not held."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=["storyteller", "gemma"])
    parser.add_argument("--tokens", type=int, default=1025, help="of held-out text")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--into", type=Path, help="a Markdown file with places for the tables, docs/pruning.md")
    args = parser.parse_args()
    torch.manual_seed(0)
    bench = Bench("prune")
    made: dict[str, list[str]] = {"pruning-parts": [], "sparsity-quality": [], "sparsity-kernels": []}
    for model in args.models:
        text = Text.of(model, args.tokens)
        for name in (name for name in PARTS if name in args.only):
            made["pruning-parts"].append(PARTS[name](bench, text))
            print(made["pruning-parts"][-1], flush=True)
        del text
    for model in args.models:
        for place, section in weight_sections(bench, model, args.tokens, args.only):
            made[place].append(section)
            print(section, flush=True)
    if args.into:
        parts = {name: "\n\n".join(sections) for name, sections in made.items() if sections}
        head = {"pruning-about": about(args.tokens)}
        args.into.write_text(filled(args.into.read_text(encoding="utf-8"), head | parts), encoding="utf-8")
    bench.end()


def weight_sections(bench: Bench, model: str, tokens: int, only: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Single weights, each table with its place: what each way to choose them costs, and what gains without zeros."""
    if "zeros" in only:
        rows = quality_rows(model, tokens)
        if model == "gemma":
            judge_quality(bench, rows)
        yield "sparsity-quality", quality_section(model, tokens, rows)
    if "kernels" in only:
        yield "sparsity-kernels", f"**{model}**. {kernel_section(kernel_trials(shapes_of(model)))}"
    if "decode" in only:
        yield "sparsity-kernels", decode_section(model)


def about(tokens: int) -> str:
    """How it was measured."""
    machine, versions = hardware()["hardware"], hardware()["versions"]
    return (
        f"Tables by `python -m benchmarks.prune --into docs/pruning.md` on {machine['processor']}, {machine['cores']} "
        f"cores, torch {versions['torch']}. Everything is against the same model in fp32 with nothing removed, and "
        f"nothing is trained afterwards. **KLD**, **top-1** and **perplexity** (times the baseline's) are over "
        f"{tokens - 1:,} tokens of held-out text in calls of 256, of which the first alone begins with the "
        "token that opens Gemma's texts; **decode** is a paired ratio of one-token steps "
        "taken in turn, with its 95% interval."
    )


if __name__ == "__main__":
    main()
