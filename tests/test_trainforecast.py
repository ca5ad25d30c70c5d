"""The forecast of a training's memory beside a live lane that trains, and its refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.catalog import model_facts, resolve
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.trainforecast import check_training_memory, forecast_training

FACTS = model_facts(resolve("storyteller"))
WEIGH = """
import json, sys
from backend.trainlane import TrainLane
lane = TrainLane("student", json.loads(sys.argv[1]), lambda share, text: None)
lane.load()
for _ in range(2):
    lane.trainer.step()
print(json.dumps(lane.trainer.held_bytes() | {"peak_bytes": lane.meter.note_peak()}))
"""  # in a process of its own, whose memory is nobody else's
HALF: dict[str, Any] = {"student": {"switches": {"drop_layers": {"count": 4}}}}


def asked(**fields: Any) -> Training:
    pace = {"tokens": 3 * 1024, "batch": 8, "length": 128} | fields.pop("pace", {})
    return Training.read({"name": "weighed", "pace": pace} | fields)


MAPS: dict[str, Any] = HALF | {"losses": {"logits": 1.0, "attention": 1.0}, "pace": {"tokens": 6144, "length": 256}}


@pytest.mark.parametrize(
    "fields", [HALF, {"pace": {"checkpointing": True}}, MAPS], ids=["half", "checkpointing", "attention maps"]
)
def test_a_live_training_keeps_to_its_forecast(fields: dict[str, Any], tmp_path: Path) -> None:
    order = asked(**fields)
    predicted = forecast_training(order, FACTS, FACTS).total_bytes
    environment = os.environ | {"HEADWAY_HOME": str(tmp_path)}
    command = [sys.executable, "-c", WEIGH, order.model_dump_json()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    memory = json.loads(done.stdout)
    trained = memory["weights_bytes"] / 4
    assert memory["gradient_bytes"] == pytest.approx(4 * trained, rel=0.01)
    assert memory["optimizer_bytes"] == pytest.approx(8 * trained, rel=0.01)
    assert memory["peak_bytes"] == pytest.approx(predicted, rel=0.2)


def test_what_does_not_fit_is_refused_with_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.trainforecast.free_bytes", lambda device: 10**9)
    with pytest.raises(RecipeError, match="Accumulate over more calls, take a smaller batch, or switch checkpointing"):
        check_training_memory(asked(pace={"batch": 64}), FACTS, FACTS)
    monkeypatch.setattr("backend.trainforecast.free_bytes", lambda device: 5 * 10**8)
    with pytest.raises(RecipeError, match="LoRA"):
        check_training_memory(asked(pace={"batch": 1}), FACTS, FACTS)
    check_training_memory(asked(pace={"batch": 1}, methods={"lora": {}}), FACTS, FACTS)
