"""Distillation on Gemma: sliding layers, a vocabulary of 262,144, and weights of which one table is most."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.catalog import resolve
from backend.engine.load import load
from backend.engine.quality import window_loss
from backend.engine.training.layermap import ORIGIN, note_origin
from backend.engine.training.text import Windows, read_documents, read_lesson
from backend.engine.training.trainer import Trainer
from backend.recipe.training import Training
from backend.techniques.coach import Pupil
from backend.techniques.registry import apply_switch

ASKED = {
    "model": "gemma",
    "name": "gemma-draft",
    "student": {"switches": {"drop_layers": {"remove": "1-3 5-16"}}},
    "losses": {"logits": 1.0, "hidden": 0.1, "attention": 0.1},
    "methods": {"on_policy": {"share": 1.0, "prompt": 0.75}},
    "pace": {"tokens": 256, "batch": 1, "length": 32, "rate": 0.0001, "warmup": 0.0},
}


@pytest.mark.real
def test_windows_of_gemma_begin_with_its_opening_token_without_which_it_is_lost(gemma_home: Path) -> None:
    ref = resolve("gemma")
    teacher = load(ref, device="cpu")
    held = read_lesson(teacher, read_documents(ref, "", 1), 2_000, 64, 1, lambda share, text: None).held_out
    assert isinstance(held, Windows)
    rows = held.batch(0, 4)
    assert set(rows[:, 0].tolist()) == {teacher.tokenizer.bos_token_id}  # type: ignore[union-attr]
    losses = [window_loss(teacher, row) for row in rows.tolist()]
    assert sum(total for total, _ in losses) / sum(count for _, count in losses) < 4.5  # 6.3 without


@pytest.mark.real
def test_layers_of_gemma_learn_from_all_of_them(gemma_home: Path) -> None:
    teacher, asked = load(resolve("gemma"), device="cpu"), Training.read(ASKED)
    teacher.notes[ORIGIN] = list(range(18))
    student = replace(teacher, model=copy.deepcopy(teacher.model), notes={})
    apply_switch(student, asked.student.pipeline[0])
    note_origin(student, teacher.notes[ORIGIN])
    assert student.notes[ORIGIN] == [0, 4, 17]
    tokens = np.random.default_rng(1).integers(0, 200_000, 400).astype(np.int32)
    trainer = Trainer(Pupil(student, teacher, asked), Windows(tokens, 32, 1), torch.float32)
    assert trainer.objective._map.states == (3, 16, 17)
    before = student.model.get_parameter("model.layers.1.mlp.up_proj.weight").detach().clone()
    step = trainer.step()
    assert set(step.parts) == {"logits", "hidden", "attention"}
    assert all(value > 0 for value in step.parts.values())
    assert step.told["own_text"] == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(student.model.get_parameter("model.layers.1.mlp.up_proj.weight"), before)
