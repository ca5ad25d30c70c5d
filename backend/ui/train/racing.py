"""The race of a trained model: the teacher, the student before it was trained, and the student that came out."""

from __future__ import annotations

from typing import Any

from backend.recipe.training import Training
from backend.ui.bench import PLAIN
from backend.ui.models import examples_for

NAME = "trained"  # the switch that puts a model in the lane of another


def race_data(asked: Training) -> dict[str, Any]:
    """The race as plain data; what a method converts to at the end both variants get."""
    converted: dict[str, Any] = {}
    for method in asked.methods.values():
        converted |= getattr(method, "conversion", {})
    switches = asked.student.model_dump(mode="json")["switches"]
    before = {NAME: {"name": asked.smaller}} | switches if asked.smaller else switches
    made_of_another = asked.stages.assistants and asked.stages.made_from == "before"  # no recipe makes it untrained
    untrained = {} if made_of_another else before | converted
    variants = [untrained, {NAME: {"name": asked.name}} | converted]
    return {
        "model": asked.model,
        "revision": asked.revision,
        "trust_remote_code": asked.trust_remote_code,
        "prompt": next(iter(examples_for(asked.model)), PLAIN["prompt"]),
        "baseline": {},
        "variants": [{"switches": one} for one in variants if one],  # a student that is the model itself has no lane
    }
