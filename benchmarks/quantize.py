"""The frontier of quantization on a real model: bits really held, decode speed, and what it costs in KLD.

All models lie in one process and take their steps in turn, so that ratios are of one run; they share the embedding.
Quality is of whole windows of held-out English, the call shape of prefill; of methods whose result depends on the
call's shape, decode is scored apart.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from backend.catalog import resolve
from backend.engine.calibration import text_reader
from backend.engine.decode import Decoder
from backend.engine.load import load
from backend.engine.quality import Shadow, compare
from backend.engine.text import encode
from backend.hardware import hardware
from backend.journal import state_folder
from backend.metrics import Ratio, paired_ratio
from backend.recipe.race import Sampling
from backend.recipe.recipe import Recipe
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back
from backend.texts import held_out_text
from benchmarks._bench import ENGLISH, Bench

WINDOW = 256
ROWS = 64  # scored at a time: (64, V) float32 is 67 MB of Gemma
HEAD = (
    "| method | bits held | decode speed | KLD mean | p99 | KLD in decode | top-1 | perplexity | prepared, s |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)
STEPS, ROUNDS = 12, 12
DECODED = 256  # tokens scored one a call

METHODS: dict[str, dict[str, Any]] = {
    "int8 weights": {"int8_weight_only": {}},
    "int8 dynamic": {"int8_dynamic": {}},
    "int8 dynamic, per channel": {"int8_dynamic": {"per_channel": True}},
    "int8 dynamic, per token": {"int8_dynamic": {"scale": "token"}},
    "int8 static, minmax": {"int8_static": {"observer": "minmax"}},
    "int8 static, percentile": {"int8_static": {"observer": "percentile"}},
    "int8 static, mse": {"int8_static": {"observer": "mse"}},
    "SmoothQuant .5, per token": {"smoothquant": {}},
    "SmoothQuant .8, per token": {"smoothquant": {"alpha": 0.8}},
    "SmoothQuant .5, static": {"smoothquant": {"scale": "static"}},
    "fp8, simulated": {"fp8": {"simulate": True}},
    "int4 g32, head int8": {"int4_weight_only": {}},
}


@dataclass
class Method:
    """One changed model, and what was found of it."""

    name: str
    subject: Subject
    switches: dict[str, Any]
    bits: float
    prepared_s: float
    shape_dependent: bool
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    decode_kld: list[float] = field(default_factory=list)
    speed: Ratio | None = None

    def row(self, base_nats: float) -> str:
        """One line of the table."""
        kld = sorted(self.scores["kld"])
        p99 = kld[int(0.99 * (len(kld) - 1))]
        nats = -statistics.fmean(self.scores["logp"])
        decode = f"{statistics.fmean(self.decode_kld):.4f}" if self.decode_kld else "the same"
        speed = f"{self.speed.ratio:.2f} ({self.speed.low:.2f} to {self.speed.high:.2f})" if self.speed else ""
        return (
            f"| {self.name} | {self.bits:.2f} | {speed} | {statistics.fmean(kld):.4f} | {p99:.3f} | {decode} | "
            f"{statistics.fmean(self.scores['top1']):.3f} | {math.exp(nats):.2f} ({math.exp(nats - base_nats):.3f}x) | "
            f"{self.prepared_s:.0f} |"
        )


def main() -> None:
    """Print the frontier table; exit 1 when a bound of it is not held."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="gemma")
    parser.add_argument("--tokens", type=int, default=8192, help="of held-out text")
    parser.add_argument("--only", nargs="+", help="names of methods, or parts of them")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    args = parser.parse_args()
    bench = Bench("quantize")
    base = prepared(args.model, "fp32", {}, args.tokens)
    chosen = {n: s for n, s in METHODS.items() if not args.only or any(part in n for part in args.only)}
    methods = [prepared(args.model, name, switches, args.tokens) for name, switches in chosen.items()]
    for method in methods:
        method.subject.model.set_input_embeddings(base.subject.model.get_input_embeddings())
    ids = encode(base.subject, held_out_text(resolve(args.model)).text[: 8 * args.tokens])[: args.tokens]
    base_nats = score(base, methods, ids)
    decode_apart(base, [one for one in methods if one.shape_dependent], ids)
    measure_speed(base, methods)
    table = "\n".join([*HEAD, *(method.row(base_nats) for method in methods)])
    print(table, flush=True)
    if args.out:
        args.out.write_text(page(args.model, len(ids), base_nats, table), encoding="utf-8")
    judge(bench, {method.name: method for method in methods})
    bench.end()


def page(model: str, tokens: int, base_nats: float, table: str) -> str:
    """The table with how it was measured."""
    machine, versions = hardware()["hardware"], hardware()["versions"]
    return (
        f"# Quantization, measured on {model}\n\n"
        f"Written by `python -m benchmarks.quantize --out docs/quantization.md`, in one run on {machine['processor']}, "
        f"{machine['cores']} cores, torch {versions['torch']}. Everything is against the same model in fp32, whose "
        f"perplexity is {math.exp(base_nats):.2f}.\n\n"
        f"- **bits held**: of a weight in the quantized layers, scales included, counted in the live model.\n"
        f"- **decode speed**: paired ratio of one-token steps taken in turn, with its 95% interval.\n"
        f"- **KLD**, **top-1**, **perplexity**: over {tokens:,} tokens of held-out English in calls of {WINDOW}, the "
        f"shape of prefill. **KLD in decode**: over {DECODED} tokens of one call each, where that differs.\n"
        f"- **prepared**: seconds to quantize, calibration included; one found from an earlier run takes none.\n\n"
        f"{table}\n"
    )


def prepared(model: str, name: str, switches: dict[str, Any], scored: int) -> Method:
    """A model loaded and changed."""
    ref = resolve(model)
    subject = load(ref)
    text = held_out_text(ref).text
    subject.sample_ids = encode(subject, text[: 8 * scored])[-512:]
    subject.read_text = text_reader(subject, ref, 8 * scored)
    subject.shelf = state_folder() / "calibrated"
    recipe = Recipe.read({"switches": switches})
    began = time.perf_counter()
    bits = 32.0
    for switch in recipe.pipeline:
        apply_switch(subject, switch)
        bits = float(read_back(subject, switch).facts["bits_per_weight"])
    seconds = time.perf_counter() - began
    print(f"        {name}: {bits:.2f} bits a weight, prepared in {seconds:.1f} s", flush=True)
    dependent = any(switch.shape_dependent for switch in recipe.pipeline)
    return Method(name, subject, switches, bits, seconds, dependent)


@torch.inference_mode()
def score(base: Method, methods: list[Method], ids: list[int]) -> float:
    """Score every method on every window against the baseline; the baseline's nats a token."""
    nats: list[float] = []
    for start in range(0, len(ids) - 1, WINDOW):
        window, following = ids[start : start + WINDOW], ids[start + 1 : start + WINDOW + 1]
        inputs = torch.tensor([window[: len(following)]])
        logps = torch.log_softmax(base.subject.model(input_ids=inputs, use_cache=False).logits[0], dim=-1)  # (T, V)
        of_token = logps.gather(1, torch.tensor(following)[:, None])[:, 0]
        nats += (-of_token).tolist()
        for method in methods:
            logits = method.subject.model(input_ids=inputs, use_cache=False).logits[0]
            for row in range(0, len(following), ROWS):
                part = slice(row, row + ROWS)
                found = compare(logps[part], logits[part], following[part])
                method.scores["kld"] += found["kld"]
                method.scores["top1"] += found["top1"]
                method.scores["logp"] += [
                    a + b for a, b in zip(found["delta_logp"], of_token[part].tolist(), strict=True)
                ]
    return statistics.fmean(nats)


@torch.inference_mode()
def decode_apart(base: Method, methods: list[Method], ids: list[int]) -> None:
    """KLD where every call holds one token."""
    prompt, tokens = ids[:32], ids[32 : 32 + DECODED]
    shadows = [Shadow(method.subject, prompt, len(tokens)) for method in methods]
    inputs = torch.tensor([prompt + tokens])
    logps = torch.log_softmax(base.subject.model(input_ids=inputs, use_cache=False).logits[0, 31:-1], dim=-1)
    for method, shadow in zip(methods, shadows, strict=True):
        method.decode_kld = shadow.score(logps, tokens)["kld"]


def measure_speed(base: Method, methods: list[Method]) -> None:
    """Seconds of a few steps of every model in turn, paired with the baseline's of the same round."""
    prompt = encode(base.subject, ENGLISH)
    decoders = {}
    for method in (base, *methods):
        decoders[method.name] = Decoder(method.subject, Sampling(), seed=1)
        decoders[method.name].start(prompt, room=STEPS * (ROUNDS + 1) + 1)
    spent: dict[str, list[float]] = defaultdict(list)
    for turn in range(ROUNDS + 1):
        order = [base, *methods] if turn % 2 else [*methods[::-1], base]
        for method in order:
            decoders[method.name].step()  # its weights have left the cache, and so pays the first step
            began = time.perf_counter()
            for _ in range(STEPS - 1):
                decoders[method.name].step()
            if turn:
                spent[method.name].append(time.perf_counter() - began)
    for method in methods:
        method.speed = paired_ratio(spent[base.name], spent[method.name])


def judge(bench: Bench, methods: dict[str, Method]) -> None:
    """Check what the frontier must reach, as far as the methods were run."""

    def kld(name: str) -> float:
        return statistics.fmean(methods[name].scores["kld"])

    finer = [name for name in methods if "per token" in name]
    if finer and "int8 dynamic" in methods:
        best = min(finer, key=kld)
        fastest = methods["int8 dynamic"].speed
        kept = methods[best].speed
        bench.check(f"{best}: KLD", kld(best), at_most=0.05)
        if fastest and kept:
            bench.check(f"{best}: share of dynamic int8's speed", kept.ratio / fastest.ratio, at_least=0.8)


if __name__ == "__main__":
    main()
