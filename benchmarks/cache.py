"""Caches of keys and values: what each loses as a text gets longer, the bytes it keeps a token, and its speed.

    python -m benchmarks.cache                                # Gemma, held-out English, up to 2,048 tokens
    python -m benchmarks.cache --long                         # up to 4,096
    python -m benchmarks.cache --into docs/attention.md       # writes the tables, too

The text is read once, as a prompt; each cache is filled with what such a prompt leaves in it, and the last tokens are
then decoded. They are given, and several pass in one call where that computes what one by one would: a quantized cache
packs a block once its last token is there, so up to that token nothing it shows changes (backend/engine/recorded.py).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Cache

from backend.catalog import resolve
from backend.checks.docs import filled
from backend.engine.contexts import Contexts, empty
from backend.engine.load import load
from backend.engine.memory import MemoryMeter
from backend.engine.recorded import fill
from backend.engine.text import encode
from backend.hardware import hardware
from backend.metrics import Ratio, paired_ratio
from backend.recipe.contexts import SAFE_KLD, ContextSweep
from backend.recipe.recipe import Recipe
from backend.recipe.switches.cache import WindowCache
from backend.recipe.switches.quantized_cache import QuantizedCache
from backend.techniques.base import DecodePlan, Subject
from backend.techniques.registry import apply_switch, read_back
from backend.texts import held_out_text
from benchmarks._bench import Bench

LENGTHS, LONG = (512, 1024, 2048), 4096
JUDGED, QUARTER = 2048, 0.25  # tokens at which 4 bits are judged; bytes of fp16
SCORED = 64  # tokens at the end of each length
STEPS = 32  # that are timed for each cache and length: a block of a quantized cache is packed in them once
CHARACTERS = 8  # a token, more than any text here has
INT4 = "int4 cache"


@dataclass
class Row:
    """One cache, and what was found of it."""

    recipe: Recipe
    of_fp16: float | None = None  # bytes of a packed token of what fp16 takes
    codes: float | None = None  # of these, the codes alone
    quality: dict[int, dict[str, Any]] = field(default_factory=dict)  # by length
    speed: dict[int, Ratio] = field(default_factory=dict)  # of the full cache's

    @property
    def label(self) -> str:
        """As lanes are called."""
        return self.recipe.label


def caches() -> list[Row]:
    """Every cache that is measured, one switch each."""
    asked: list[dict[str, Any]] = [
        *({"quantized_cache": {"key_bits": bits, "value_bits": bits}} for bits in (8, 4, 2)),
        {"quantized_cache": {"key_bits": 4, "value_bits": 4, "group_size": 128}},
        {"quantized_cache": {"key_bits": 4, "value_bits": 2}},
        {"static_cache": {}},
        {"window_cache": {"window": 512}},
    ]
    if "sinks" in WindowCache.model_fields:
        asked.append({"window_cache": {"window": 512, "sinks": 4}})
    return [Row(Recipe.read({"switches": switches})) for switches in asked]


class Field:
    """One model, one text, and the caches side by side."""

    def __init__(self, model: str, longest: int) -> None:
        self.subject: Subject = load(resolve(model))
        text = held_out_text(resolve(model))
        self.source = text.source
        self.ids = encode(self.subject, text.text[: CHARACTERS * longest])
        self.rows = caches()
        race = {"model": model, "prompt": "Once", "variants": [{}]}
        asked: dict[str, Any] = {"race": race, "longest": longest, "scored": SCORED}
        self._sweep = Contexts(self.subject, self.ids, MemoryMeter())
        asked["caches"] = [row.recipe.model_dump(mode="json") for row in self.rows]
        self._asked = ContextSweep.read(asked).model_dump(mode="json")
        self.full_bytes: dict[int, int] = {}

    def score(self, lengths: list[int]) -> None:
        """KLD at every length."""
        self._sweep.context_start(self._asked)
        for length in lengths:
            found = self._sweep.context_quality(length)
            self.full_bytes[length] = found["kv_bytes"]
            for row, told in zip(self.rows, found["caches"], strict=True):
                row.quality[length] = told
                print(f"        {length:5d} {row.label}: KLD {told['kld']:.5f}, top-1 {told['top1']:.3f}", flush=True)

    def weigh(self) -> None:
        """Bytes of a packed token, measured on a live cache."""
        for row in self.rows:
            (switch,) = row.recipe.pipeline
            if isinstance(switch, QuantizedCache):
                self.subject.plan = DecodePlan()
                apply_switch(self.subject, switch)
                facts = read_back(self.subject, switch).facts
                row.of_fp16 = facts["of_fp16"]
                row.codes = facts["of_fp16"] * facts["codes_per_token"] / facts["kv_bytes_per_token"]
        self.subject.plan = DecodePlan()

    def time(self, lengths: list[int]) -> None:
        """Steps of every cache in turn, after prompts that end where the scored tokens begin."""
        for length in lengths:
            every = [Recipe(), *(row.recipe for row in self.rows)]
            prompted = [
                fill(empty(self.subject, recipe, length + STEPS), self._sweep.record, length - SCORED)
                for recipe in every
            ]
            seconds: list[list[float]] = [[] for _ in every]
            for step in range(STEPS + 1):
                token = self.ids[length - SCORED + step]
                for turn in range(len(every)):
                    at = (turn + step) % len(every)
                    seconds[at].append(self._step(prompted[at], token))
            for row, spent in zip(self.rows, seconds[1:], strict=True):
                row.speed[length] = paired_ratio(seconds[0][1:], spent[1:])

    @torch.inference_mode()
    def _step(self, cache: Cache, token: int) -> float:
        ids = torch.tensor([[token]], device=self.subject.device)
        started = time.perf_counter()
        self.subject.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1).logits.argmax().item()
        return time.perf_counter() - started


def quality_table(rows: list[Row], lengths: list[int]) -> str:
    """KLD by cache and length; bold where it is above the bound."""
    lines = [["cache", *(f"{length:,} tokens" for length in lengths), f"safe at {lengths[-1]:,}"]]
    for row in rows:
        cells = [row.quality[length] for length in lengths]
        safe = max(cell["kld"] for cell in cells) <= SAFE_KLD
        certain = max(cell["high"] for cell in cells) <= SAFE_KLD
        shown = [f"{cell['kld']:.4f} ({cell['low']:.4f} to {cell['high']:.4f})" for cell in cells]
        said = "yes" if certain else "its mean is" if safe else "**no**"
        lines.append([row.label + _group(row), *shown, said])
    return _table(lines)


def memory_table(rows: list[Row], lengths: list[int], full: dict[int, int]) -> str:
    """Bytes of a packed token of fp16, all that is kept at the longest, and speed by length."""
    head = ["cache", "a packed token, of fp16", "its codes alone", f"kept at {lengths[-1]:,}, of full"]
    lines = [[*head, *(f"speed at {length:,}" for length in lengths)]]
    for row in rows:
        kept = row.quality[lengths[-1]]["kv_bytes"] / full[lengths[-1]]
        shares = ["" if share is None else f"{share:.1%}" for share in (row.of_fp16, row.codes)]
        speeds = [f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f})" for one in (row.speed[at] for at in lengths)]
        lines.append([row.label + _group(row), *shares, f"{kept:.1%}", *speeds])
    return _table(lines)


def _group(row: Row) -> str:
    (switch,) = row.recipe.pipeline
    usual = QuantizedCache().group_size
    size = getattr(switch, "group_size", usual)
    return f", groups of {size}" if size != usual else ""


def _table(lines: list[list[str]]) -> str:
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ruled)


def about(model: str, found: Field) -> str:
    """How it was measured."""
    machine, versions = hardware()["hardware"], hardware()["versions"]
    return (
        f"By `python -m benchmarks.cache --into docs/attention.md` on {machine['processor']}, {machine['cores']} "
        f"cores, torch {versions['torch']}, transformers {versions['transformers']}, {model} in fp32, {found.source}. "
        f"KLD is the mean in nats against the full cache, with its 95% interval, over the last {SCORED} tokens of each "
        "length: what stands before them is read as a prompt, and they are decoded. Safe: below "
        f"{SAFE_KLD:g} at every length, with the whole interval. Speed is that of a decoded token over the full "
        f"cache's, paired, {STEPS} steps."
    )


def judge(bench: Bench, rows: list[Row], lengths: list[int]) -> None:
    """The bounds of 4 bits: KLD, and codes of a quarter of fp16. Scales come on top, and are printed."""
    four = next(row for row in rows if row.label == INT4)
    if JUDGED in lengths:
        bench.check(f"int4, mean KLD at {JUDGED:,} tokens", four.quality[JUDGED]["kld"], at_most=SAFE_KLD)
    for row in rows:
        if row.label == INT4 and row.of_fp16 and row.codes:
            bench.check(f"int4{_group(row)}, codes of a token, of fp16", row.codes, at_most=QUARTER)
            print(f"        int4{_group(row)}, codes and scales, of fp16: {row.of_fp16:.3f}")


def main() -> None:
    """Measure, print, and write tables; exit 1 when a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma")
    parser.add_argument("--long", action="store_true", help=f"{LONG:,} tokens, too")
    parser.add_argument("--into", type=Path, help="a Markdown file with places for the tables, docs/attention.md")
    args = parser.parse_args()
    bench = Bench("cache")
    lengths = [*LENGTHS, LONG] if args.long else list(LENGTHS)
    found = Field(args.model, lengths[-1])
    lengths = [length for length in lengths if length <= min(found.subject.facts.context, len(found.ids) - 1)]
    found.weigh()
    found.score(lengths)
    found.time(lengths)
    parts = {
        "cache-about": about(args.model, found),
        "cache-quality": quality_table(found.rows, lengths),
        "cache-memory": memory_table(found.rows, lengths, found.full_bytes),
    }
    print("\n\n".join(parts.values()), flush=True)
    judge(bench, found.rows, lengths)
    if args.into:
        args.into.write_text(filled(args.into.read_text(encoding="utf-8"), parts), encoding="utf-8")
    bench.end()


if __name__ == "__main__":
    main()
