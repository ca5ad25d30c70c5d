"""Drafts out of a model's own layers, for the training benchmark: how well they guess before and after training."""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from backend.recipe.training import Training
from backend.ui.models import examples_for
from backend.ui.train.racing import draft_race_data
from benchmarks._bench import Bench
from benchmarks._lessons import School, Taught

DRAFTS: dict[str, dict[str, Any]] = {
    "storyteller": {
        "student": {"switches": {"drop_layers": {"count": 6, "remove": "2-7"}}},
        "pace": {"tokens": 100_000},
    },
    "gemma": {
        "student": {"switches": {"drop_layers": {"count": 12}}},
        "pace": {"tokens": 50_000, "batch": 4, "length": 64, "rate": 2e-4},
    },
}
LEAST = {"storyteller": 1.1, "gemma": 1.3}  # untrained, the storyteller keeps nine of ten of such guesses already
LOOKS = {"questions": 0, "windows": 16}
RACED = {"measure": {"budget_s": 10.0, "quality_tokens": 0, "questions": 0}, "max_new_tokens": 96}
PROMPTS = 3
HEAD = (
    "| target | draft | seeds | tokens | minutes | accepted | kept | tokens a round | times plain |\n"
    + "|---" * 9
    + "|"
)
Lane = dict[str, Any]  # of a race's verdict


def drafting(bench: Bench, school: School, seeds: range) -> str:
    """A draft out of a model's own layers: the tokens that a round gives before it was trained, and after."""
    rows = [HEAD]
    for model, fields in DRAFTS.items():
        taught = [school.teach(f"draft-{model}", seed, model=model, looks=LOOKS, **fields) for seed in seeds]
        raced = [verdict for one in taught for verdict in races(school, one)]
        first, last = ([verdict[lane] for verdict in raced] for lane in ("A", "B"))
        gain = tokens_a_round(last) / tokens_a_round(first)
        bench.check(f"tokens a round on {model} by the trained draft, of those before", gain, at_least=LEAST[model])
        rows += [row(model, "untrained", taught, [one.first for one in taught], first)]
        rows += [row(model, "trained", taught, [one.last for one in taught], last)]
    return "\n".join(rows)


def races(school: School, taught: Taught) -> list[dict[str, Lane]]:
    """The target with its draft untrained (A) and trained (B), on some prompts."""
    asked = Training.read(taught.asked)
    data = draft_race_data(asked, taught.found["begun"]["layers"]) | RACED
    prompts = examples_for(asked.model)[:PROMPTS]
    found = [school.run("race", json.dumps(data | {"prompt": prompt}), "--json") for prompt in prompts]
    return [dict(race["verdict"]["lanes"]) for race in found]


def tokens_a_round(lanes: list[Lane]) -> float:
    """Mean acceptance length, the target's own token with it."""
    return fmean(lane["speculation"]["mean_acceptance_length"] for lane in lanes)


def row(model: str, draft: str, taught: list[Taught], looks: list[dict[str, Any]], lanes: list[Lane]) -> str:
    """How a draft guesses: means over seeds and prompts."""
    tokens, minutes = (taught[0].tokens, fmean(one.minutes for one in taught)) if draft == "trained" else (0, 0.0)
    accepted, kept = fmean(look["accepted"] for look in looks), fmean(lane["speculation"]["alpha"] for lane in lanes)
    speed = fmean(lane["speed"]["ratio"] for lane in lanes)
    return (
        f"| {model} | {draft} | {len(taught)} | {tokens:,} | {minutes:.1f} | {accepted:.0%} | {kept:.0%} "
        f"| {tokens_a_round(lanes):.2f} | {speed:.2f} |"
    )
