"""Single weights set to zero: what each way to choose them costs, and from how many zeros on sparse kernels gain."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from backend.catalog import resolve
from backend.engine.calibration import text_reader
from backend.engine.load import load
from backend.engine.text import encode
from backend.recipe.recipe import Recipe
from backend.techniques.prune.masks import choose
from backend.techniques.prune.sparse_linear import BlockLinear, CsrLinear, SparseLinear
from backend.techniques.prune.trial import Trial, compare
from backend.techniques.registry import apply_switch, read_back
from backend.texts import held_out_text
from benchmarks._bench import ENGLISH, STORY, Bench
from benchmarks._contenders import Ours, measure_speed, score

SPARSEGPT, WANDA, MAGNITUDE = "SparseGPT", "Wanda", "magnitude"
METHODS: dict[str, dict[str, Any]] = {
    SPARSEGPT: {"sparsegpt": {}},
    WANDA: {"wanda": {}},
    MAGNITUDE: {"magnitude": {}},
    "magnitude over all layers": {"magnitude": {"scope": "global"}},
    "Taylor": {"gradient": {"by": "taylor"}},
    "Fisher": {"gradient": {"by": "fisher"}},
    "OBD": {"gradient": {"by": "obd"}},
    "SparseGPT 2:4": {"sparsegpt": {"pattern": "2:4"}},
    "Wanda 2:4": {"wanda": {"pattern": "2:4"}},
    "magnitude 2:4": {"magnitude": {"pattern": "2:4"}},
    "SparseGPT 64x1": {"sparsegpt": {"pattern": "64x1"}},
    "Wanda 64x1": {"wanda": {"pattern": "64x1"}},
}
DECODES: dict[str, dict[str, Any]] = {  # whole models; a gain of 0 holds matrices sparse whatever it costs
    "50% zeros, dense": {"magnitude": {}},
    "50% zeros, CSR": {"magnitude": {}, "sparse_kernels": {"gain": 0.0}},
    "50% zeros 64x1, blocks": {"magnitude": {"pattern": "64x1"}, "sparse_kernels": {"gain": 0.0}},
    "75% zeros 64x1, blocks": {"magnitude": {"ratio": 0.75, "pattern": "64x1"}, "sparse_kernels": {"gain": 0.0}},
    "90% zeros, CSR": {"magnitude": {"ratio": 0.9}, "sparse_kernels": {"gain": 0.0}},
}
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FORMS: dict[str, type[SparseLinear]] = {"CSR": CsrLinear, "64x1": BlockLinear}
LAYERS = 16  # of a shape that are timed in turn, so that weights do not stay in the nearest caches


@dataclass(frozen=True)
class Quality:
    """What one way to choose half of the weights costs."""

    name: str
    zeros: float  # counted in the live model
    perplexity: float
    ratio: float  # over that of the whole model
    kld: float  # nats, mean
    top1: float
    prepared_s: float

    def row(self) -> str:
        """One line of the table."""
        cells = (
            self.name,
            f"{self.zeros:.1%}",
            f"{self.perplexity:.2f} ({self.ratio:.3f}x)",
            f"{self.kld:.4f}",
            f"{self.top1:.3f}",
            f"{self.prepared_s:.0f}",
        )
        return f"| {' | '.join(cells)} |"


def quality_rows(model: str, tokens: int, only: Sequence[str] = ()) -> list[Quality]:
    """Score every method on the first tokens of the held-out text; calibration begins behind them. One model at a time
    lies beside the whole one.

    Args:
        only: names of METHODS; all of them where it is empty.
    """
    base = _prepared(model, "whole", {}, tokens)
    ids = encode(base.subject, held_out_text(resolve(model)).text[: 8 * tokens])[:tokens]
    rows = []
    for name, switches in METHODS.items():
        if only and name not in only:
            continue
        one = _prepared(model, name, switches, tokens)
        nats = score(base, [one], ids)
        ours = -statistics.fmean(one.scores["logp"])
        zeros = float(read_back(one.subject, one.switch).facts["sparsity"])
        top1 = statistics.fmean(one.scores["top1"])
        rows.append(Quality(name, zeros, math.exp(ours), math.exp(ours - nats), one.kld, top1, one.prepared_s))
        print(f"        {rows[-1].row()}", flush=True)
    return rows


class _Pruned(Ours):
    switch: Any  # the first of its recipe


def _prepared(model: str, name: str, switches: dict[str, Any], scored: int) -> _Pruned:
    ref = resolve(model)
    subject = load(ref)
    subject.sample_ids = encode(subject, held_out_text(ref).text[: 8 * scored])[-512:]
    subject.read_text = text_reader(subject, ref, 8 * scored)
    recipe = Recipe.read({"switches": switches})
    began = time.perf_counter()
    for switch in recipe.pipeline:
        apply_switch(subject, switch)
    found = _Pruned(name, 32.0, time.perf_counter() - began, recipe.simulated)
    found.subject, found.shape_dependent = subject, False
    found.switch = next(iter(recipe.pipeline), None)
    return found


def judge_quality(bench: Bench, rows: Iterable[Quality]) -> None:
    """SparseGPT below Wanda below magnitude."""
    perplexity = {row.name: row.perplexity for row in rows}
    for better, worse in ((SPARSEGPT, WANDA), (WANDA, MAGNITUDE)):
        if better in perplexity and worse in perplexity:
            share = perplexity[better] / perplexity[worse]
            bench.check(f"{better}: perplexity over that of {worse}", share, at_most=1.0)


def quality_section(model: str, tokens: int, rows: Iterable[Quality]) -> str:
    """The table in Markdown."""
    head = "| half of the weights zero by | zeros | perplexity | KLD mean | top-1 | prepared, s |"
    about = f"{model}, {tokens - 1:,} tokens of held-out text in calls of 256; ratios are over the whole model's."
    return "\n".join([about, "", head, f"|{' --- |' * 6}", *(row.row() for row in rows)])


def shapes_of(model: str) -> list[tuple[int, int]]:
    """The shapes of a model's matrices but for its head, the largest first."""
    subject = load(resolve(model))
    head = subject.model.get_output_embeddings()
    found = {tuple(layer.weight.shape) for layer in subject.linears().values() if layer is not head}
    return sorted(((int(rows), int(columns)) for rows, columns in found), key=lambda one: -one[0] * one[1])


def kernel_trials(shapes: Iterable[tuple[int, int]], shares: Sequence[float] = SHARES) -> dict[str, list[Trial]]:
    """Every shape dense and sparse in turns, by the words of its row: '2048 x 640, CSR'."""
    found: dict[str, list[Trial]] = {}
    for rows, columns in shapes:
        for name, form in FORMS.items():
            trials = [_trial(rows, columns, form, share) for share in shares]
            found[f"{rows} x {columns}, {name}"] = trials
            ratios = " ".join(f"{one.zeros:.0%} {one.decode:.2f}" for one in trials)
            print(f"        {rows} x {columns}, {name}: {ratios}", flush=True)
    return found


@torch.no_grad()
def _trial(rows: int, columns: int, form: type[SparseLinear], share: float) -> Trial:
    torch.manual_seed(0)
    dense = [nn.Linear(columns, rows, bias=False).requires_grad_(False) for _ in range(LAYERS)]
    for layer in dense:
        mask = choose(layer.weight.abs(), share, "64x1" if form is BlockLinear else "none", by_row=False)
        layer.weight.masked_fill_(mask, 0)
    return compare(dense, [form(layer) for layer in dense], share)


def break_even(trials: Sequence[Trial]) -> float | None:
    """The share of zeros at which the decode ratio passes 1, between two that were timed; None where it never does."""
    for before, after in pairwise(trials):
        if before.decode < 1 <= after.decode:
            return before.zeros + (after.zeros - before.zeros) * (1 - before.decode) / (after.decode - before.decode)
    return trials[0].zeros if trials and trials[0].decode >= 1 else None


def kernel_section(found: dict[str, list[Trial]]) -> str:
    """The table in Markdown: decode and prefill by share of zeros, and the break-even."""
    shares = [f"{trial.zeros:.0%}" for trial in next(iter(found.values()))]
    lines = [f"| matrix, format | {' | '.join(shares)} | break-even |", f"|{' --- |' * (len(shares) + 2)}"]
    for name, trials in found.items():
        even = break_even(trials)
        first = trials[0].zeros
        words = "none" if even is None else f"below {first:.0%}" if even == first else f"{even:.0%}"
        cells = [f"{trial.decode:.2f} / {trial.prefill:.2f}" for trial in trials]
        lines.append(f"| {name} | {' | '.join(cells)} | {words} |")
    threads = torch.get_num_threads()
    about = (
        f"Times as fast as the dense fp32 matrix with as many zeros: one row (decode) / 128 rows (prefill), on "
        f"{threads} thread{'s' if threads > 1 else ''}, {LAYERS} matrices in turn. The break-even is of decode."
    )
    return "\n".join([about, "", *lines])


def decode_section(model: str) -> str:
    """Whole models with zeros, dense and sparse, taking steps in turn: paired ratios with their intervals."""
    base = _prepared(model, "whole", {}, 4096)
    ours = [_prepared(model, name, switches, 4096) for name, switches in DECODES.items()]
    for one in ours:
        one.subject.model.set_input_embeddings(base.subject.model.get_input_embeddings())
    with torch.inference_mode():
        measure_speed(base, ours, encode(base.subject, STORY if model == "storyteller" else ENGLISH))
    lines = ["| zeros and kernels | decode speed |", "| --- | --- |"]
    for one in ours:
        speed = one.speed
        if speed is not None:
            lines.append(f"| {one.name} | {speed.ratio:.2f} ({speed.low:.2f} to {speed.high:.2f}) |")
            print(f"        {model}, {lines[-1]}", flush=True)
    return "\n".join([f"{model}: one-token steps taken in turn with the dense whole model, 95% intervals.", "", *lines])
