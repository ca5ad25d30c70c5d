"""A training as files: JSON with everything, CSV with a row for each step and each look."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from backend.trained import TrainedLane, TrainingView

HEAD = ("record", "who", "step", "tokens_trained")


def as_json(view: TrainingView, spec: dict[str, Any]) -> str:
    """The recipe, versions and hardware, every step and every look."""
    lanes = {
        name: asdict(lane) | {"recovered": lane.recovered, "tokens_per_s": lane.tokens_per_s}
        for name, lane in view.lanes.items()
    }
    head = {"training": spec, "state": view.state, "opened": view.opened, "wall_s": view.wall_s, "card": view.card}
    return json.dumps(head | {"lanes": lanes, "gave_way": view.gave_way}, indent=1, ensure_ascii=False)


def as_csv(view: TrainingView) -> str:
    """Raw values; a sample is JSON, so that it is one line and no formula of a spreadsheet."""
    found = [row for lane in view.lanes.values() for row in _rows(lane)]
    columns = dict.fromkeys((*HEAD, *(name for row in found for name in row)))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue()


def _rows(lane: TrainedLane) -> Iterator[dict[str, Any]]:
    tokens = lane.begun.get("step_tokens", 0)
    for step in lane.steps:
        flat = {name: step[name] for name in ("loss", "rate", "norm", "seconds")} | step.get("memory", {})
        flat |= {f"loss_{name}": value for name, value in step["parts"].items()} | step.get("told", {})
        done = step["number"] + 1
        yield {"record": "step", "who": "student", "step": done, "tokens_trained": done * tokens} | flat
    for who, look in [*([("teacher", lane.teacher)] if lane.teacher else []), *(("student", k) for k in lane.looks)]:
        figures = {f"held_out_{name}": value for name, value in look.items() if name not in ("who", "step", "sample")}
        sample = json.dumps(look.get("sample", ""), ensure_ascii=False)
        trained = look["step"] * tokens if who == "student" else ""
        head = {"record": "look", "who": who, "step": look["step"], "tokens_trained": trained}
        yield head | figures | {"sample_json": sample}
