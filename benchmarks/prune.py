"""Pruning on real models: what each ranking is worth, what really gets faster, and which metric tells of it."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from backend.hardware import hardware
from benchmarks._bench import Bench
from benchmarks._structured import Text, layers_section, rankings_section, speed_section

SECTIONS = {"rankings": rankings_section, "speed": speed_section, "layers": layers_section}


def main() -> None:
    """Print the tables; exit 1 when a bound is not held."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=["storyteller", "gemma"])
    parser.add_argument("--tokens", type=int, default=1025, help="of held-out text")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    args = parser.parse_args()
    torch.manual_seed(0)
    bench = Bench("prune")
    sections = []
    for model in args.models:
        text = Text.of(model, args.tokens)
        for name in args.only:
            sections.append(SECTIONS[name](bench, text))
            print(sections[-1], flush=True)
        del text
    if args.out:
        args.out.write_text(page(sections, args.tokens), encoding="utf-8")
    bench.end()


def page(sections: list[str], tokens: int) -> str:
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
    return "\n\n".join([about, *sections]) + "\n"


if __name__ == "__main__":
    main()
