"""Experts, measured: speed against dense models of equal size, balance after training, and what each switch costs.

All models lie in one process and take their steps in turn. Quality is of whole windows of held-out stories.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from backend.catalog import resolve
from backend.engine.text import encode
from backend.hardware import hardware
from backend.metrics import Ratio, paired_ratio
from backend.routing import balance
from backend.techniques.expertlayers import expert_layers
from backend.techniques.quantize.counting import weight_bytes
from backend.texts import held_out_text
from benchmarks._bench import STORY, Bench
from benchmarks._contenders import WINDOW, Contender, Ours, measure_speed, score

MODEL = "storyteller-moe"
WHOLE, ACTIVE, TRAINED = "dense, equal total size", "dense, equal active size", "top 2 of 8, as trained"
METHODS: dict[str, dict[str, Any]] = {
    WHOLE: {"merge_experts": {"count": 8}},
    ACTIVE: {"merge_experts": {"count": 2}},
    "top 1 of 8": {"expert_top_k": {"count": 1}},
    "top 4 of 8": {"expert_top_k": {"count": 4}},
    "capacity 1.25": {"expert_capacity": {"factor": 1.25}},
    "capacity 1": {"expert_capacity": {"factor": 1.0}},
    "2 experts fewer, by usage": {"prune_experts": {"count": 2}},
    "2 experts fewer, by weights": {"prune_experts": {"count": 2, "by": "weights"}},
    "2 experts fewer, at random": {"prune_experts": {"count": 2, "by": "random"}},
    "experts int8": {"quantize_experts": {"level": "int8"}},
    "experts int4": {"quantize_experts": {"level": "int4"}},
    "all int8": {"int8_weight_only": {}},
}
UNTRAINED = (WHOLE, ACTIVE)
IMPLEMENTATIONS = ("eager", "grouped_mm", "batched_mm")  # of transformers
ROUNDS = 20
EQUAL = 1e-4  # of logits, largest difference
HEAD = f"| model | weights held, MB | decode speed | KLD mean | p99 | top-1 | perplexity |\n|{' --- |' * 7}"


def main() -> None:
    """Print the tables; exit 1 when a bound is not held."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tokens", type=int, default=8193, help="of held-out stories")
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    args = parser.parse_args()
    bench = Bench("moe")
    with tempfile.TemporaryDirectory() as folder:
        base = Ours.prepared(MODEL, TRAINED, {}, args.tokens, Path(folder))
        others = [Ours.prepared(MODEL, name, how, args.tokens, Path(folder)) for name, how in METHODS.items()]
    ids = encode(base.subject, held_out_text(resolve(MODEL)).text[: 8 * args.tokens])[: args.tokens]
    nats = score(base, others, ids)
    measure_speed(base, others, encode(base.subject, STORY))
    sections = [switches(base, others, nats, len(ids) - 1), shares(bench, base, ids), execution(bench, base, ids)]
    print("\n\n".join(sections), flush=True)
    whole = next(one for one in others if one.name == WHOLE)
    assert_speed(bench, whole)
    if args.out:
        args.out.write_text(page(sections), encoding="utf-8")
    bench.end()


def assert_speed(bench: Bench, whole: Contender) -> None:
    """Experts against the dense model of equal total size."""
    if whole.speed is not None:
        bench.check("decode speed over the dense model of equal total size", 1 / whole.speed.ratio, at_least=1.5)


def switches(base: Ours, others: list[Ours], nats: float, tokens: int) -> str:
    """A row a switch, against the model as it was trained."""
    rows = [HEAD, f"| {TRAINED} | {megabytes(base)} | 1 | 0 | 0 | 1 | {math.exp(nats):.3f} |"]
    rows += [row(one) for one in others]
    about = f"Against the model as it was trained, {tokens:,} tokens of held-out stories in calls of {WINDOW}."
    return f"## Speed and quality\n\n{about}\n\n" + "\n".join(rows)


def row(one: Ours) -> str:
    """Speed is real in every row; text of dense parts that were never trained so is not worth a figure."""
    speed = f"{one.speed.ratio:.2f} ({one.speed.low:.2f} to {one.speed.high:.2f})" if one.speed else ""
    cells = [one.name, megabytes(one), speed]
    if one.name in UNTRAINED:
        return f"| {' | '.join([*cells, *['needs training'] * 4])} |"
    kld = sorted(one.scores["kld"])
    nats = -statistics.fmean(one.scores["logp"])
    cells += [f"{one.kld:.4f}", f"{kld[int(0.99 * (len(kld) - 1))]:.3f}"]
    cells += [f"{statistics.fmean(one.scores['top1']):.3f}", f"{math.exp(nats):.3f}"]
    return f"| {' | '.join(cells)} |"


def megabytes(one: Ours) -> str:
    """Weights of the live model."""
    return f"{weight_bytes(one.subject.model) / 1e6:.0f}"


@torch.inference_mode()
def shares(bench: Bench, base: Ours, ids: list[int]) -> str:
    """Each expert's share of its layer's work, and the bound on its variation."""
    layers = list(expert_layers(base.subject.model).values())
    counts = torch.zeros(len(layers), len(layers[0]), dtype=torch.long)
    for start in range(0, len(ids) - WINDOW, WINDOW):
        base.logits(ids[start : start + WINDOW])
        for number, layer in enumerate(layers):
            if layer.picked is not None:
                counts[number] += torch.bincount(layer.picked.flatten(), minlength=len(layer))
    found = [balance(row) for row in counts.tolist()]
    worst = max(one["variation"] for one in found)
    bench.check("coefficient of variation after training, worst layer", worst, at_most=0.5)
    head = f"| layer | {' | '.join(map(str, range(counts.shape[1])))} | variation | entropy |"
    rows = [head, f"|{' --- |' * (counts.shape[1] + 3)}"]
    for number, (row, one) in enumerate(zip(counts.tolist(), found, strict=True)):
        each = " | ".join(f"{count / sum(row):.3f}" for count in row)
        rows.append(f"| {number} | {each} | {one['variation']:.3f} | {one['entropy']:.3f} |")
    about = f"Shares of {int(counts[0].sum()):,} choices a layer on held-out stories."
    return f"## Balance\n\n{about}\n\n" + "\n".join(rows)


@torch.inference_mode()
def execution(bench: Bench, base: Ours, ids: list[int]) -> str:
    """Our grouped execution against those of transformers: the same numbers, and the time of a call."""
    theirs: PreTrainedModel = AutoModelForCausalLM.from_pretrained(resolve(MODEL).place, dtype=torch.float32).eval()
    rows = ["| implementation | one token | 128 tokens |", "| --- | --- | --- |"]
    for name in IMPLEMENTATIONS:
        theirs.set_experts_implementation(name)
        far = (logits(theirs, ids[:128]) - logits(base.subject.model, ids[:128])).abs().max().item()
        bench.check(f"{name}: largest difference of a logit", far, at_most=EQUAL)
        ratios = [race(theirs, base.subject.model, ids[:count]) for count in (1, 128)]
        cells = " | ".join(f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f})" for one in ratios)
        rows.append(f"| transformers, {name} | {cells} |")
    about = "How many times as fast whole calls are with experts as linear layers, without a cache."
    return f"## Execution\n\n{about}\n\n" + "\n".join(rows)


def logits(model: nn.Module, ids: list[int]) -> Tensor:
    """(T, V)."""
    found: Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return found


def race(theirs: nn.Module, ours: nn.Module, ids: list[int]) -> Ratio:
    """Seconds of theirs over seconds of ours, calls in turn."""
    spent: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS + 1):
        for model, found in zip((theirs, ours), spent, strict=True):
            logits(model, ids)  # its weights have left the cache
            began = time.perf_counter()
            logits(model, ids)
            if turn:
                found.append(time.perf_counter() - began)
    return paired_ratio(spent[0], spent[1])


def page(sections: list[str]) -> str:
    """The tables with how they were measured."""
    machine, versions = hardware()["hardware"], hardware()["versions"]
    about = (
        "# Mixture of experts, measured\n\n"
        "Written by `python -m benchmarks.moe --out docs/moe.md`, in one run on "
        f"{machine['processor']}, {machine['cores']} cores, torch {versions['torch']}, on the storyteller of experts "
        "in fp32. Decode speeds are paired ratios of one-token steps taken in turn, with 95% intervals. Dense models "
        "of equal size are made by joining the experts: their speed is real, and their text is that of no trained "
        "model."
    )
    return "\n\n".join([about, *sections]) + "\n"


if __name__ == "__main__":
    main()
