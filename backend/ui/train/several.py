"""Trainings that are queued together, to be compared: one for every number of KV heads, or in stages and at once."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.recipe.recipe import Recipe
from backend.recipe.switches.attention import KVHeads
from backend.recipe.switches.layers import DropLayers
from backend.recipe.training import Training
from backend.ui.form.options import fitting
from backend.ui.models import facts_of
from backend.ui.train import names
from backend.ui.train.address import ADDRESS

NOTE = "They run one after the other. Pick them in the table below to see their recovery in one plot."


def sweep_of(asked: Training) -> list[Training]:
    """One training for every number of KV heads that the model's divide into, most first; none without such a student.

    >>> [one.name for one in sweep_of(Training.read({"name": "a"}))]
    []
    """
    held = asked.student.switches.get(KVHeads.kind)
    facts, _ = facts_of(asked.smaller or asked.model, asked.revision, asked.trust_remote_code)
    if held is None or facts is None:
        return []
    found = []
    for heads in reversed(fitting(KVHeads, "count", facts) or ()):
        data = asked.model_dump(mode="json")
        data["student"]["switches"][KVHeads.kind]["count"] = heads
        found.append(_named(data, f"kv{heads}"))
    return found


def at_once_of(asked: Training) -> Training | None:
    """A staged training's student with the same tokens in one stage; None where no recipe makes it at once."""
    if not asked.stages.assistants:
        return None
    student = asked.student if asked.stages.made_from == "original" else _all_cuts(asked.stage_recipes)
    if student is None:
        return None
    data = asked.model_dump(mode="json") | {"stages": {}, "student": student.model_dump(mode="json")}
    return _named(data, "at-once")


def _named(data: dict[str, Any], end: str) -> Training:
    """A training under the first one's name with an end of its own."""
    return names.free(Training.read(data | {"name": f"{data['name'][:70]}-{end}"}))


def _all_cuts(stages: list[Recipe]) -> Recipe | None:
    """One recipe for all, where each takes so many layers of the one before and does nothing else."""
    cuts = [switch for recipe in stages for switch in recipe.switches.values()]
    if not all(isinstance(cut, DropLayers) and not cut.remove and not cut.ratio for cut in cuts):
        return None
    count = sum(getattr(cut, "count", 0) for cut in cuts)
    return Recipe(switches={DropLayers.kind: cuts[-1].model_copy(update={"count": count})})


def draw_several(asked: Training | None) -> None:
    """The buttons that queue several, where there is something to compare."""
    if asked is None:
        return
    found = sweep_of(asked)
    if len(found) > 1:
        heads = ", ".join(str(getattr(one.student.switches[KVHeads.kind], "count", "")) for one in found)
        label = f"Train one for each of {heads} KV heads"
        st.button(label, key="train-sweep", on_click=_queue, args=(found,), help=NOTE)
    if direct := at_once_of(asked):
        label = "Train it in stages and at once"
        st.button(label, key="train-both", on_click=_queue, args=([names.free(asked), direct],), help=NOTE)


def _queue(found: list[Training]) -> None:
    numbers = [ADDRESS.submit(one) for one in found]
    if numbers[0]:
        ADDRESS.open(numbers[0])
