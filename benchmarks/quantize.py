"""The frontier of quantization on real models: bits really held, decode speed, and what it costs in KLD.

All models lie in one process and take their steps in turn, so that ratios are of one run; they share the embedding.
Quality is of whole windows of held-out text, the call shape of prefill; of methods whose result depends on the call's
shape, decode is scored apart. Where llama-cpp-python is installed, llama.cpp runs the same model beside them.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from backend.catalog import resolve
from backend.engine.gguf.write import write_gguf
from backend.engine.load import load
from backend.engine.text import encode
from backend.hardware import hardware
from backend.texts import held_out_text
from benchmarks._bench import ENGLISH, STORY, Bench
from benchmarks._contenders import DECODED, WINDOW, Contender, Ours, Theirs, decode_apart, measure_speed, score
from benchmarks._encoders import encoder_section
from benchmarks._llamacpp import TYPES, quantized

HEAD = (
    "| method | bits held | decode speed | KLD mean | p99 | KLD in decode | top-1 | perplexity | prepared, s | "
    "better in speed and KLD |",
    f"|{' --- |' * 10}",
)
NEAREST, MIXED, INT8, DYNAMIC = "int4 g32", "mixed, split head", "int8 weights", "int8 dynamic"
CALIBRATED = ("GPTQ g32", "AWQ g32", "HQQ g32")
METHODS: dict[str, dict[str, Any]] = {
    INT8: {"int8_weight_only": {}},
    DYNAMIC: {"int8_dynamic": {}},
    "int8 dynamic, per channel": {"int8_dynamic": {"per_channel": True}},
    "int8 dynamic, per token": {"int8_dynamic": {"scale": "token"}},
    "int8 static, minmax": {"int8_static": {"observer": "minmax"}},
    "int8 static, percentile": {"int8_static": {"observer": "percentile"}},
    "int8 static, mse": {"int8_static": {"observer": "mse"}},
    "SmoothQuant .5, per token": {"smoothquant": {}},
    "SmoothQuant .6, per token": {"smoothquant": {"alpha": 0.6}},
    "SmoothQuant .5, static": {"smoothquant": {"scale": "static"}},
    "fp8, simulated": {"fp8": {"simulate": True}},
    MIXED: {"mixed_precision": {"levels": "head:split"}},
    NEAREST: {"int4_weight_only": {}},
    **{name: {name.split()[0].lower(): {}} for name in CALIBRATED},
    "int4 g32, head int4": {"int4_weight_only": {"head": "int4"}},
    "int3 g32": {"narrow_weight_only": {"bits": 3}},
    "NF4": {"bnb_4bit": {}},
    "LLM.int8()": {"bnb_int8": {}},
    "int8 weights, int8 embedding": {"int8_weight_only": {}, "embedding_table": {}},
}


@dataclass
class Table:
    """The rows of one model, once they have been scored."""

    model: str
    tokens: int
    base_nats: float
    rows: dict[str, Contender]

    def text(self) -> str:
        """Markdown."""
        theirs = [one for one in self.rows.values() if isinstance(one, Theirs)]
        lines = [*HEAD, *(one.row(self.base_nats, theirs) for one in self.rows.values())]
        about = f"Perplexity in fp32 {math.exp(self.base_nats):.2f}, over {self.tokens:,} tokens of held-out text."
        return f"## {self.model}\n\n{about}\n\n" + "\n".join(lines)


def main() -> None:
    """Print the frontier tables; exit 1 when a bound of Gemma's or of the encoder's is not held."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=["gemma", "storyteller"])
    parser.add_argument("--tokens", type=int, default=8193, help="of held-out text")
    parser.add_argument("--only", nargs="+", help="names of methods, or parts of them")
    parser.add_argument("--encoder", default="minilm", help="a model, or 'none'")
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    args = parser.parse_args()
    bench = Bench("quantize")
    sections = []
    for model in args.models:
        table = run(model, args.tokens, args.only)
        print(table.text(), flush=True)
        sections.append(table.text())
        if model == "gemma":
            judge(bench, table.rows)
    if args.encoder != "none":
        sections.append(encoder_section(bench, args.encoder))
        print(sections[-1], flush=True)
    if args.out:
        args.out.write_text(page(sections), encoding="utf-8")
    bench.end()


def run(model: str, tokens: int, only: list[str] | None) -> Table:
    """Prepare, score and time every method on one model."""
    with tempfile.TemporaryDirectory() as folder:
        base = Ours.prepared(model, "fp32", {}, tokens, Path(folder))
        chosen = {n: s for n, s in METHODS.items() if not only or any(part in n for part in only)}
        ours = []
        for name, switches in chosen.items():
            one = Ours.prepared(model, name, switches, tokens, Path(folder))
            one.subject.model.set_input_embeddings(base.subject.model.get_input_embeddings())
            ours.append(one)
        others: list[Contender] = [*ours, *llama_cpp(model, Path(folder))]
    ids = encode(base.subject, held_out_text(resolve(model)).text[: 8 * tokens])[:tokens]
    nats = score(base, others, ids)
    decode_apart(base, ours, ids)
    measure_speed(base, others, encode(base.subject, STORY if model == "storyteller" else ENGLISH))
    return Table(model, len(ids) - 1, nats, {one.name: one for one in others})


def llama_cpp(model: str, folder: Path) -> Iterator[Theirs]:
    """llama.cpp's own types of the same model, where it is installed."""
    if find_spec("llama_cpp") is None:
        print("        llama-cpp-python is not installed: nothing of llama.cpp is compared", flush=True)
        return
    subject = load(resolve(model))
    plain = folder / "plain.gguf"
    write_gguf(subject, plain, "f32", lambda share, text: None)
    for kind in TYPES:
        began = time.perf_counter()
        file = quantized(plain, kind, folder / f"{kind}.gguf", torch.get_num_threads())
        yield Theirs.prepared(f"llama.cpp {kind}", file, subject.facts.parameters, time.perf_counter() - began)


def page(sections: list[str]) -> str:
    """The tables with how they were measured."""
    machine, versions = hardware()["hardware"], hardware()["versions"]
    about = (
        f"# Quantization, measured\n\n"
        "Written by `python -m benchmarks.quantize --out docs/quantization.md`, each table in one run on "
        f"{machine['processor']}, {machine['cores']} cores, torch {versions['torch']}. Everything is against the same "
        "model in fp32.\n\n"
        f"- **bits held**: of a weight in the quantized layers, scales included, counted in the live model; of "
        f"llama.cpp the whole file over all weights.\n"
        f"- **decode speed**: paired ratio of one-token steps taken in turn, with its 95% interval.\n"
        f"- **KLD**, **top-1**, **perplexity**: in calls of {WINDOW} tokens, the shape of prefill; the "
        f"first call alone begins with the token that opens Gemma's texts. **KLD in decode**: "
        f"over the text's first {DECODED} tokens, one a call, of methods whose result may hang on the call: to be read "
        f"down the column and not along the row.\n"
        f"- **prepared**: seconds to quantize, calibration included.\n"
        f"- **better in speed and KLD**: types of llama.cpp that are faster (intervals apart) and nearer in decode.\n"
    )
    return "\n\n".join([about.rstrip("\n"), *sections]) + "\n"


def judge(bench: Bench, rows: dict[str, Contender]) -> None:
    """Check what the frontier must reach, as far as the methods were run."""
    finer = [one for name, one in rows.items() if "per token" in name]
    if finer and DYNAMIC in rows:
        best = min(finer, key=lambda one: one.kld)
        bench.check(f"{best.name}: KLD", best.kld, at_most=0.05)
        bench.check(f"{best.name}: share of dynamic int8's speed", ratio(best, rows[DYNAMIC]), at_least=0.8)
    calibrated = [rows[name] for name in CALIBRATED if name in rows]
    if calibrated and NEAREST in rows:
        best = min(calibrated, key=lambda one: one.kld)
        bench.check(f"{best.name}: KLD over that of {NEAREST}", best.kld / rows[NEAREST].kld, at_most=0.5)
        bench.check(f"{best.name}: speed over that of {NEAREST}", ratio(best, rows[NEAREST]), at_least=0.95)
        longest = max(calibrated, key=lambda one: one.prepared_s)
        bench.check(f"{longest.name}: calibration, s", longest.prepared_s, at_most=300)
    if MIXED in rows and INT8 in rows:
        bench.check(f"{MIXED}: bits a weight", rows[MIXED].bits, at_most=6.0)
        bench.check(f"{MIXED}: KLD over that of {INT8}", rows[MIXED].kld / rows[INT8].kld, at_most=2.0)


def ratio(one: Contender, other: Contender) -> float:
    """How many times as fast."""
    return one.speed.ratio / other.speed.ratio if one.speed and other.speed else 0.0


if __name__ == "__main__":
    main()
