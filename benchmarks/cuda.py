"""Techniques on a GPU: what each gains over bf16 in decode and in prefill, on a shape of random weights.

All models lie on the device at once and take their turns, so that ratios are of one run. Quality is not shown: random
weights have none. Without a CUDA device it says so and ends.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from backend.metrics import Ratio, paired_ratio
from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.registry import read_back
from benchmarks._bench import Bench
from benchmarks._contenders import Ours, measure_speed

METHODS: dict[str, dict[str, Any]] = {
    "int8 weights": {"int8_weight_only": {}},
    "int4 weights g64": {"int4_weight_only": {"group_size": 64}},
    "NF4": {"bnb_4bit": {}},
    "LLM.int8()": {"bnb_int8": {}},
    "fp8": {"fp8": {}},
    "2:4 zeros, dense kernels": {"magnitude": {"pattern": "2:4"}},
    "2:4 zeros, sparse kernels": {"magnitude": {"pattern": "2:4"}, "sparse_kernels": {}},
    "half of the neurons": {"prune_neurons": {"ratio": 0.5, "by": "weights"}},
    "4 layers fewer": {"drop_layers": {"count": 4}},
    "static cache, compiled": {"static_cache": {}, "compile": {}},
}
PROMPT, LONG, ROUNDS = 64, 1024, 12


def main() -> None:
    """Print a row a method."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="shape:llama-1b")
    parser.add_argument("--only", nargs="+", help="names of methods, or parts of them")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("cuda: torch finds no CUDA device here, so nothing was measured")
        return
    bench = Bench("cuda")
    print(f"        {torch.cuda.get_device_name()}, {args.model}, bf16 as the baseline", flush=True)
    chosen = {name: how for name, how in METHODS.items() if not args.only or any(one in name for one in args.only)}
    with tempfile.TemporaryDirectory() as folder:
        base = Ours.prepared(args.model, "bf16", {}, PROMPT, Path(folder))
        others = [one for name, how in chosen.items() if (one := prepared(args.model, name, how, Path(folder)))]
    measure_speed(base, others, list(range(1, PROMPT + 1)))
    print("| method | weights, MB | decode | prefill of 1,024 tokens | receipt |\n| --- | --- | --- | --- | --- |")
    for one in others:
        took = [read_back(one.subject, switch) for switch in Recipe.read({"switches": chosen[one.name]}).pipeline]
        told = "; ".join(effect.summary for effect in took)
        held = f"{weight_bytes(one.subject.model) / 1e6:.0f}"
        print(f"| {one.name} | {held} | {words(one.speed)} | {words(prefill(base, one))} | {told} |", flush=True)
    bench.end()


def prepared(model: str, name: str, how: dict[str, Any], folder: Path) -> Ours | None:
    """The changed model, or None with the reason printed."""
    try:
        return Ours.prepared(model, name, how, PROMPT, folder)
    except RecipeError as refusal:
        print(f"        {name}: refused, {refusal.allowed}", flush=True)
        return None


@torch.inference_mode()
def prefill(base: Ours, other: Ours) -> Ratio:
    """Seconds of the baseline over seconds of the other, long calls in turn."""
    ids = list(range(1, LONG + 1))
    spent: dict[str, list[float]] = {base.name: [], other.name: []}
    for turn in range(ROUNDS + 2):
        for one in (base, other) if turn % 2 else (other, base):
            torch.cuda.synchronize()
            began = time.perf_counter()
            one.logits(ids)
            torch.cuda.synchronize()
            if turn > 1:
                spent[one.name].append(time.perf_counter() - began)
    return paired_ratio(spent[base.name], spent[other.name])


def words(ratio: Ratio | None) -> str:
    """'1.25 (1.20 to 1.31)'."""
    return "" if ratio is None else f"{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


if __name__ == "__main__":
    main()
