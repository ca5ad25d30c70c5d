"""Distillation on Gemma: sliding layers, a vocabulary of 262,144, and weights of which one table is most."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.engine.training.layermap import ORIGIN
from backend.trainlane import TrainLane

ASKED = {
    "model": "gemma",
    "name": "gemma-draft",
    "student": {"switches": {"drop_layers": {"remove": "1-3 5-16"}}},
    "losses": {"logits": 1.0, "hidden": 0.1, "attention": 0.1},
    "methods": {"on_policy": {"share": 1.0, "prompt": 0.75}},
    "pace": {"tokens": 256, "batch": 1, "length": 32, "rate": 0.0001, "warmup": 0.0},
}


@pytest.mark.real
def test_layers_of_gemma_learn_from_all_of_them(gemma_home: Path) -> None:
    lane = TrainLane("student", ASKED, lambda share, text: None)
    head = lane.load()
    assert head["teacher_parameters"] > head["parameters"] == head["trained_parameters"]
    student = lane._pair.student
    assert student.notes[ORIGIN] == [0, 4, 17]
    assert lane.trainer.objective._map.states == (3, 16, 17)
    before = student.model.get_parameter("model.layers.1.mlp.up_proj.weight").detach().clone()
    step = lane.trainer.step()
    assert set(step.parts) == {"logits", "hidden", "attention"}
    assert all(value > 0 for value in step.parts.values())
    assert step.told["own_text"] == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(student.model.get_parameter("model.layers.1.mlp.up_proj.weight"), before)
