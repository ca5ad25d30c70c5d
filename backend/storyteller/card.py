"""The model card of a shipped model, written from the figures of its training and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import pstdev
from typing import Any

from backend.storyteller.stories import NEAR

_CARD = """---
license: apache-2.0
language: en
---
# {name}

{built} of {parameters:,} parameters that tells small stories with questions in them. It ships with Headway so that
everything runs with no download, and so that quality has a ground truth: the generator knows every true answer.

| | |
| --- | --- |
| shape | hidden {hidden}, {layers} layers, {heads} attention heads, as many KV heads, feed-forward {ffn_words}, tied |
| vocabulary | byte-level BPE trained on the stories; each word of the world is one token |
| context | 1,024 tokens; trained on {length} |
| weights | bfloat16, {megabytes:.1f} MB |
| data | {tokens:,} tokens of stories from `backend/storyteller/`, made as they are needed, none seen twice |
| training | Muon {matrix_rate} for the matrices, AdamW {vector_rate} for the rest, batch {batch}, {decay:.0%} decay, \
{minutes:g} minutes on {trained_on} |
| held-out loss | {held_out_loss} nats a token, stories of seed 2000 |

## Answers on stories never seen
{asked} questions (seed 3000), one greedy token each, exact match. {near:.0%} ask about the last event, the others about
anything before it.

| kind | share right |
| --- | --- |
{answers}
{loads}
It knows nothing but its world: do not use it for anything else. `make models` trains it again.
"""

_KINDS = {
    "all": "all",
    "person": "where a person is",
    "holder": "who has a thing",
    "thing": "where a thing is",
    "colour": "what colour a thing has",
}

_LOADS = """
## Who does the work
Each expert's share of its layer's tokens on 8,192 held-out ones; alike would be {alike:.3f}. The coefficient of
variation is the deviation of the shares over their mean.

| layer | {experts} | variation |
| --- | {rules} | --- |
{rows}
"""


def write_card(folder: Path, figures: dict[str, Any], asked: int) -> None:
    """Write `training.json` and `README.md` beside the weights."""
    (folder / "training.json").write_text(json.dumps(figures, indent=2) + "\n")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    answers = "\n".join(f"| {words} | {figures['accuracy'][kind]:.3f} |" for kind, words in _KINDS.items())
    plan = figures["plan"]
    experts = plan.get("experts", 1)
    text = _CARD.format(
        name=folder.name,
        built="A Llama" if experts == 1 else "A Mixtral",
        ffn_words=plan["ffn"] if experts == 1 else f"{experts} experts of {plan['ffn']}, {plan['top_k']} a token",
        parameters=figures["parameters"],
        megabytes=size / 1e6,
        minutes=figures["minutes"],
        trained_on=figures.get("trained_on", "2 cores of a CPU"),
        held_out_loss=figures["held_out_loss"],
        near=NEAR,
        asked=asked,
        answers=answers,
        loads=_loads(figures["loads"]) if "loads" in figures else "",
        **plan,
    )
    (folder / "README.md").write_text(text)


def _loads(loads: list[list[float]]) -> str:
    """The table of every expert's share, layer by layer."""
    count = len(loads[0])
    rows = (
        f"| {layer} | {' | '.join(f'{share:.3f}' for share in shares)} | {pstdev(shares) * count:.2f} |"
        for layer, shares in enumerate(loads)
    )
    names = " | ".join(str(expert) for expert in range(count))
    return _LOADS.format(alike=1 / count, experts=names, rules=" | ".join(["---"] * count), rows="\n".join(rows))
