"""The races of a trained model: beside its teacher and the untrained student, and as its teacher's draft."""

from __future__ import annotations

from typing import Any

from backend.recipe.named import write_layers
from backend.recipe.switches.draft import DraftModel, SelfDraft
from backend.recipe.switches.layers import DropLayers
from backend.recipe.switches.trained import Trained
from backend.recipe.training import Training
from backend.trained import TrainedLane
from backend.ui.bench import PLAIN
from backend.ui.models import examples_for

NAME = Trained.kind


def race_data(asked: Training) -> dict[str, Any]:
    """The teacher, the student before it was trained, and what came out.

    What a method converts to at the end both variants get.
    """
    converted: dict[str, Any] = {}
    for method in asked.methods.values():
        converted |= getattr(method, "conversion", {})
    switches = asked.student.model_dump(mode="json")["switches"]
    before = {NAME: {"name": asked.smaller}} | switches if asked.smaller else switches
    made_of_another = asked.stages.assistants and asked.stages.made_from == "before"  # no recipe makes it untrained
    untrained = {} if made_of_another else before | converted
    variants = [untrained, {NAME: {"name": asked.name}} | converted]
    return _race(asked, [one for one in variants if one])  # a student that is the model itself has no lane


def can_draft(lane: TrainedLane) -> bool:
    """Whether guesses of the student were judged by its teacher, and it is the smaller of the two."""
    judged = bool(lane.looks) and "accepted" in lane.looks[-1]
    return judged and lane.begun["parameters"] < (lane.begun.get("teacher_parameters") or 0)


def draft_race_data(asked: Training, layers: list[int]) -> dict[str, Any]:
    """The teacher alone, with the untrained student as its draft where a switch can make one, and with what came out.

    Args:
        asked: the training.
        layers: which of the teacher's layers the student was made of.
    """
    before: list[dict[str, Any]] = []
    if asked.smaller and not asked.student.switches:
        before = [{DraftModel.kind: {"model": asked.smaller}}]
    elif not asked.smaller and set(asked.student.switches) == {DropLayers.kind} and layers:
        before = [{SelfDraft.kind: {"layers": write_layers(tuple(layers)), "cache": "own"}}]
    return _race(asked, [*before, {DraftModel.kind: {"model": asked.name}}])


def _race(asked: Training, variants: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": asked.model,
        "revision": asked.revision,
        "trust_remote_code": asked.trust_remote_code,
        "prompt": next(iter(examples_for(asked.model)), PLAIN["prompt"]),
        "baseline": {},
        "variants": [{"switches": one} for one in variants],
    }
