"""The explained result on constructed cases, whose true reasons are known; and whether the parts sum to the step.

Each case is a whole race in lanes of its own, so what is judged is what the page would say.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from typing import Any

from backend.executors.local import LocalExecutor
from backend.replay import RaceView
from benchmarks import _slow_layer
from benchmarks._bench import ENGLISH, STORY, Bench, make_race


def llama(hidden: int, ffn: int, layers: int, vocab: int = 256) -> str:
    """A model of this shape with random weights."""
    config = {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": hidden // 4, "vocab_size": vocab,
        "max_position_embeddings": 1024, "tie_word_embeddings": False,
    }  # fmt: skip
    return f"shape:{json.dumps(config)}"


SMALL, WIDE = llama(64, 128, 8), llama(2048, 8192, 2)


@dataclass(frozen=True)
class Case:
    """A model, and the reason that one of its lanes must be given."""

    name: str
    model: str
    reason: str
    phase: str = "decode"
    lane: str = "base"
    prompt: str = "Once"
    switches: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("64 wide, 8 layers: calls", SMALL, "overhead"),
    Case("2048 wide, 2 layers: reading weights", WIDE, "bandwidth"),
    Case("2048 wide, a prompt of 512 tokens: arithmetic", WIDE, "compute", "prefill", prompt="x" * 512),
    Case("one layer of four slowed down", llama(512, 2048, 4), "slow layer", lane="A", switches={"slow_layer": {}}),
    Case("half of the weights zero", "storyteller", "simulated", lane="A", prompt=STORY,
         switches={"magnitude": {"ratio": 0.5}}),
)  # fmt: skip


def main() -> None:
    """Print every case; exit 1 when a reason is wrong, or parts do not sum to the step."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each case")
    parser.add_argument("--models", nargs="+", default=["storyteller", "gemma"], help="whose parts are summed")
    args = parser.parse_args()
    bench = Bench("explain")
    bench.executor = LocalExecutor(preload=[_slow_layer.__name__])
    for case in CASES:
        found = [reason(bench, case) for _ in range(args.runs)]
        bench.check(f"{case.name}: called '{case.reason}' of {args.runs}", found.count(case.reason), at_least=args.runs)
    for model in args.models:
        view = race(bench, model, STORY if model == "storyteller" else ENGLISH, {"int8_weight_only": {}})
        for name, lane in view.lanes.items():
            for phase in ("decode", "prefill"):
                part = lane.breakdown[phase]
                off = abs(part["hooked_step_s"] / part["step_s"] - 1)
                bench.check(f"{model} {name}, {phase}: parts off the unprofiled step by", off, at_most=0.1)
            left = view.verdict["lanes"][name]["explained"]["decode"]
            share = left["bars"]["unexplained"] / left["measured_s"]
            print(
                f"        {model} {name}: {share:+.1%} of the measured step unexplained, {left['reason']}", flush=True
            )
    bench.end()


def race(bench: Bench, model: str, prompt: str, switches: dict[str, Any]) -> RaceView:
    """A short race with its measurement."""
    measure = {"budget_s": 4, "quality_tokens": 0, "questions": 0}
    return bench.race(make_race(model, prompt, switches, max_new_tokens=24, measure=measure))


def reason(bench: Bench, case: Case) -> str:
    """The reason that the verdict gives; printed with its bars."""
    verdict = race(bench, case.model, case.prompt, case.switches).verdict
    explained = verdict["lanes"][case.lane]["explained"][case.phase]
    whole = explained["measured_s"]
    bars = ", ".join(f"{name} {value / whole:.0%}" for name, value in explained["bars"].items())
    print(f"        {case.name}: {explained['reason']}; {bars} of {1000 * whole:.3g} ms", flush=True)
    return str(explained["reason"])


if __name__ == "__main__":
    main()
