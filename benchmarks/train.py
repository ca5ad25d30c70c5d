"""Training, measured: what each way of healing brings back, against what it is usually compared with.

Every training is made by the command that a person gives, at a given seed; sections can be run one at a time, and each
writes its table into docs/training.md.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.checks.docs import filled
from backend.hardware import hardware
from backend.trained import STUDENT
from benchmarks._bench import Bench
from benchmarks._drafts import drafting
from benchmarks._lessons import LOOKS, School, Taught, mean
from benchmarks._turns import Interrupted, throughput

UPPER_HALF = {"switches": {"drop_layers": {"count": 4, "remove": "4-7"}}}
QUARTER = {"switches": {"drop_layers": {"count": 6, "remove": "2-7"}}}
LABELS = {"logits": 0.0, "labels": 1.0}
HEADS_AND_NEURONS = {"switches": {"prune_heads": {"ratio": 0.5}, "prune_neurons": {"ratio": 0.2}}}
FEW = {"windows": 8, "questions": 0, "every": 1_000_000}
KILLS = 10
LOST = 1.005  # times the perplexity, below which there is nothing to bring back
PRETRAINED = 4_000_000  # tokens of the storyteller
HEAD = (
    "| training | seeds | tokens | minutes | loss | KLD | top-1 | questions right | KLD closed |\n" + "|---" * 9 + "|"
)


def main() -> None:
    """Print the tables; exit 1 when a bound is not held."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS))
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each kind")
    parser.add_argument("--questions", type=int, default=LOOKS["questions"], help="of the exam, at both ends")
    parser.add_argument("--into", type=Path, help="a Markdown file with markers for the tables")
    args = parser.parse_args()
    bench, parts = Bench("train"), {}
    with tempfile.TemporaryDirectory() as home:
        school = School(Path(home), args.questions)
        for name in args.only:
            parts[name] = SECTIONS[name](bench, school, range(1, args.seeds + 1))
            print(f"\n{parts[name]}\n", flush=True)
    if args.into:
        machine, versions = hardware()["hardware"], hardware()["versions"]
        where = f"{machine['processor']}, {machine['cores']} cores, torch {versions['torch']}."
        told = {name: f"{where}\n\n{part}" for name, part in parts.items()}
        args.into.write_text(filled(args.into.read_text(encoding="utf-8"), told), encoding="utf-8")
    bench.end()


def distillation(bench: Bench, school: School, seeds: range) -> str:
    """Half the storyteller's depth: distilled, and on labels alone, with the same tokens."""
    kinds: dict[str, dict[str, Any]] = {
        "distilled": {},
        "labels alone": {"losses": LABELS},
        "distilled and labels": {"losses": {"logits": 1.0, "labels": 0.5}},
    }
    made = {
        kind: [school.teach(kind.replace(" ", "-"), seed, student=UPPER_HALF, **fields) for seed in seeds]
        for kind, fields in kinds.items()
    }
    closed = {kind: mean(taught, "kld")[0] for kind, taught in made.items()}
    bench.check("share of the KLD of four layers cut that distillation closes", closed["distilled"], at_least=0.6)
    bench.check("the same less that of labels alone", closed["distilled"] - closed["labels alone"], at_least=0.0)
    return table("the upper four of eight layers cut", made)


def uptraining(bench: Bench, school: School, seeds: range) -> str:
    """Fewer KV heads, uptrained with 5% of the tokens of the pre-training."""
    pace = {"tokens": PRETRAINED // 20, "rate": 1e-3}
    made = {
        f"{count} of 8 KV heads": [
            school.teach(f"kv{count}", seed, student={"switches": {"kv_heads": {"count": count}}}, pace=pace)
            for seed in seeds
        ]
        for count in (4, 2, 1)
    }
    share, low, high = mean(made["2 of 8 KV heads"], "accuracy")
    print(f"        accuracy that comes back with 2 of 8 KV heads: {share:.3f} ({low:.3f} to {high:.3f})")
    bench.check("share of the accuracy lost with 2 of 8 KV heads that comes back", share, at_least=0.8)
    return table("pooled", made, each=True)


def quantization(bench: Bench, school: School, seeds: range) -> str:
    """Few bits: post-training against training with them in mind, the same grid. The row of the cut is the former."""
    parts = []
    for bits in (3, 2):
        kind = f"int{bits}, trained with its levels in mind"
        grid = {"bits": bits, "symmetric": True, "group_size": 128}
        fields: dict[str, Any] = {"methods": {"qat": grid}, "pace": {"rate": 1e-4, "tokens": 100_000}}
        made = {kind: [school.teach(f"qat{bits}", seed, **fields) for seed in seeds]}
        share, low, high = mean(made[kind], "perplexity")
        lost = math.exp(made[kind][0].first["loss"] - made[kind][0].teacher["loss"])
        back = f"{share:.0%} ({low:.0%} to {high:.0%}) of what is lost comes back" if lost > LOST else "nothing is lost"
        parts.append(
            f"{table(f'int{bits} after training', made)}\n\nAfter training perplexity is {lost:.3f} times the whole "
            f"model's; {back}."
        )
        if bits == 2:
            bench.check("share of the perplexity lost at 2 bits that comes back", share, at_least=0.5)
    return "\n\n".join(parts)


def progression(bench: Bench, school: School, seeds: range) -> str:
    """A quarter of the depth: at once, by an assistant of half of it, layer by layer; the same tokens in all."""
    one_by_one = [{"student": without(layer), "share": 1 / 6} for layer in (7, 6, 5, 4, 3)]
    kinds: dict[str, dict[str, Any]] = {
        "at once": {"student": QUARTER},
        "by an assistant": {"student": QUARTER, "stages": {"assistants": [{"student": UPPER_HALF, "share": 0.4}]}},
        "layer by layer": {
            "student": without(2),
            "stages": {"assistants": one_by_one, "teacher": "first", "made_from": "before"},
        },
    }
    made = {
        kind: [school.teach(f"p-{kind.replace(' ', '-')}", seed, **fields) for seed in seeds]
        for kind, fields in kinds.items()
    }
    for taught in made["by an assistant"] + made["layer by layer"]:
        taught.found["looks"].insert(0, made["at once"][0].first)  # what is closed is counted from the whole cut
    return table("six of eight layers cut", made)


def without(layer: int) -> dict[str, Any]:
    """The recipe of a student without one layer."""
    return {"switches": {"drop_layers": {"count": 1, "remove": str(layer)}}}


def healing(bench: Bench, school: School, seeds: range) -> str:
    """Half of the heads and a fifth of the neurons pruned, 30% of the weights: healed in full, and by LoRA."""
    kinds: dict[str, dict[str, Any]] = {
        "healed in full": {},
        "healed by LoRA": {"methods": {"lora": {"rank": 32, "alpha": 64}}, "pace": {"rate": 4e-3}},
    }
    made = {
        kind: [school.teach(kind.replace(" ", "-"), seed, student=HEADS_AND_NEURONS, **fields) for seed in seeds]
        for kind, fields in kinds.items()
    }
    full, lora = (mean(taught, "loss")[0] for taught in made.values())
    bench.check("share of the loss that full healing recovers", full, at_least=0.7)
    bench.check("share that LoRA recovers, of that", lora / full, at_least=0.9)
    held = [taught[0].held_bytes for taught in made.values()]
    bench.check("memory of optimizer and gradients with LoRA, of that in full", held[1] / held[0], at_most=1 / 3)
    memory = f"\n\nOptimizer and gradients: {held[0] / 1e6:.0f} MB in full, {held[1] / 1e6:.1f} MB with LoRA."
    return table("30% of the layers' weights pruned", made) + memory


def interruptions(bench: Bench, school: School, seeds: range) -> str:
    """What turns, journal and live view cost, and what ten kills leave of the last loss."""
    asked = {"name": "turns", "student": UPPER_HALF, "pace": {"tokens": 300_000, "rate": 1e-3}, "looks": FEW}
    ratio = throughput(asked)
    bench.show("throughput through the worker over a bare loop", ratio)
    bench.check("throughput through the worker over a bare loop", ratio.ratio, at_least=0.9)
    short = {"student": UPPER_HALF, "pace": {"tokens": 120_000, "rate": 1e-3, "seed": seeds[0]}}
    looks = FEW | {"checkpoint_s": 2.0}
    whole = school.run("train", json.dumps(short | {"name": "whole", "looks": looks}), "--json")
    killed = Interrupted(school.home, school.environment).run(short | {"name": "killed", "looks": looks}, KILLS)
    lane = killed.lane(STUDENT)
    bench.check("kills after which it went on", len(lane.notes), at_least=KILLS)
    apart = abs(lane.looks[-1]["loss"] - whole["looks"][-1]["loss"])
    bench.check("final loss of the killed run less that of the unkilled one, nats", apart, at_most=1e-3)
    return (
        f"Steps through the worker, with journal and a page that reads along: {ratio.ratio:.3f} "
        f"({ratio.low:.3f} to {ratio.high:.3f}) of a bare loop's.\n\n"
        f"{len(lane.notes)} kills of lane and worker: the final held-out loss is {lane.looks[-1]['loss']:.5f}, "
        f"without a kill {whole['looks'][-1]['loss']:.5f}."
    )


def table(cut: str, made: dict[str, list[Taught]], each: bool = False) -> str:
    """The teacher, the student before any training, or `each` of several, and one row a kind of training."""
    first = next(iter(made.values()))[0]
    teacher = f"| the whole model | | | | {first.teacher['loss']:.4f} | 0 | 1 | {shown(first.teacher)} | |"
    rows = [HEAD, teacher, *([] if each else [before(cut, first)])]
    for kind, taught in made.items():
        rows += [before(f"{kind}, {cut}", taught[0]), row(f"{kind}, trained", taught)] if each else [row(kind, taught)]
    return "\n".join(rows)


def before(cut: str, taught: Taught) -> str:
    """What the change alone cost."""
    first = taught.first
    figures = f"{first['loss']:.4f} | {first['kld']:.4f} | {first['top1']:.3f} | {shown(first)}"
    return f"| {cut} | | 0 | 0 | {figures} | 0% |"


def row(kind: str, taught: list[Taught]) -> str:
    """Means over the seeds, with the range of what was closed."""
    share, low, high = mean(taught, "kld")
    figures = [sum(one.last[name] for one in taught) / len(taught) for name in ("loss", "kld", "top1")]
    right = sum(one.last.get("accuracy", 0.0) for one in taught) / len(taught)
    minutes = sum(one.minutes for one in taught) / len(taught)
    return (
        f"| {kind} | {len(taught)} | {taught[0].tokens:,} | {minutes:.1f} | {figures[0]:.4f} | {figures[1]:.4f} "
        f"| {figures[2]:.3f} | {right:.1%} | {share:.0%} ({low:.0%} to {high:.0%}) |"
    )


def shown(look: dict[str, Any]) -> str:
    """Questions answered right, where there were any."""
    return f"{look['accuracy']:.1%}" if "accuracy" in look else "-"


SECTIONS: dict[str, Callable[[Bench, School, range], str]] = {
    "distillation": distillation,
    "uptraining": uptraining,
    "quantization": quantization,
    "progression": progression,
    "healing": healing,
    "drafting": drafting,
    "interruptions": interruptions,
}

if __name__ == "__main__":
    main()
