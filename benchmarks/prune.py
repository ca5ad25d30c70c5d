"""Pruning on real models: what each ranking is worth, what really gets faster, and which metric tells of it.

Parts that are taken out first, then single weights set to zero, in dense matrices and without their zeros.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

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
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    args = parser.parse_args()
    torch.manual_seed(0)
    bench = Bench("prune")
    parts, weights = [], []
    for model in args.models:
        text = Text.of(model, args.tokens)
        for name in (name for name in PARTS if name in args.only):
            parts.append(PARTS[name](bench, text))
            print(parts[-1], flush=True)
        del text
    for model in args.models:
        for section in weight_sections(bench, model, args.tokens, args.only):
            weights.append(section)
            print(section, flush=True)
    if args.out:
        args.out.write_text(page(parts, weights, args.tokens), encoding="utf-8")
    bench.end()


def weight_sections(bench: Bench, model: str, tokens: int, only: Sequence[str]) -> Iterator[str]:
    """Single weights: what each way to choose them costs, each matrix dense and sparse, and whole models."""
    if "zeros" in only:
        rows = quality_rows(model, tokens)
        if model == "gemma":
            judge_quality(bench, rows)
        yield f"### {model}: half of the weights\n\n{quality_section(model, tokens, rows)}"
    if "kernels" in only:
        yield f"### {model}: matrices without their zeros\n\n{kernel_section(kernel_trials(shapes_of(model)))}"
    if "decode" in only:
        yield f"### {model}: whole models with zeros\n\n{decode_section(model)}"


def page(parts: list[str], weights: list[str], tokens: int) -> str:
    """The tables with how they were measured."""
    machine, versions = hardware()["hardware"], hardware()["versions"]
    about = (
        "# Pruning, measured\n\n"
        f"Written by `python -m benchmarks.prune --out docs/pruning.md` on {machine['processor']}, {machine['cores']} "
        f"cores, torch {versions['torch']}. Everything is against the same model in fp32 with nothing removed, and "
        "nothing is trained afterwards.\n\n"
        f"- **KLD**, **top-1**, **perplexity** (times the baseline's): over {tokens - 1:,} tokens of held-out text in "
        "calls of 256.\n"
        "- **decode**: paired ratio of one-token steps taken in turn, with its 95% interval.\n\n"
        "## Structured: heads, neurons, layers, width"
    )
    return "\n\n".join([about, *parts, "## Single weights", *weights]) + "\n"


if __name__ == "__main__":
    main()
