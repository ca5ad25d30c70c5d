"""What a pair is held against each other by while it trains: projections, attention, refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.engine.training.checkpoint import read_checkpoint, write_checkpoint
from backend.engine.training.layermap import ORIGIN
from backend.engine.training.text import Windows
from backend.engine.training.trainer import Trainer
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil


def trainer_of(student: Subject, teacher: Subject, losses: dict[str, Any], first: int = 0) -> Trainer:
    pace = {"tokens": 64 * 30, "batch": 4, "length": 16, "rate": 0.01}
    order = Training.read({"name": "x", "pace": pace, "losses": losses})
    tokens = np.random.default_rng(3).integers(0, student.facts.vocab, 4000).astype(np.int32)
    return Trainer(Pupil(student, teacher, order), Windows(tokens, 16, 1), torch.float32, first)


@pytest.mark.parametrize("shape", ["llama", "gemma"])
@pytest.mark.parametrize("width", [64, 32])
def test_every_loss_falls_for_a_student_of_any_width(
    shape: str, width: int, subject_of: Callable[..., Subject]
) -> None:
    fewer = {"layer_types": ["full_attention"]} if shape == "gemma" else {}
    teacher = subject_of(shape)
    student = subject_of(shape, seed=2, num_hidden_layers=1, hidden_size=width, num_attention_heads=2, **fewer)
    losses = {"logits": 0.5, "labels": 0.1, "hidden": 1.0, "attention": 1.0}
    trainer = trainer_of(student, teacher, losses)
    steps = [trainer.step() for _ in range(30)]
    assert set(steps[0].parts) == set(losses)
    for name in ("hidden", "attention"):
        assert steps[-1].parts[name] < steps[0].parts[name], name
    weighted = sum(losses[name] * value for name, value in steps[3].parts.items())
    assert steps[3].loss == pytest.approx(weighted, rel=1e-5)
    assert (trainer.objective.projection is not None) == (width != 64)
    trainer.finish()
    assert not any("projection" in name for name, _ in student.model.named_parameters())


def test_the_projection_is_trained_and_in_the_checkpoint(tmp_path: Path, subject_of: Callable[..., Subject]) -> None:
    teacher = subject_of("llama")
    small = {"seed": 2, "num_hidden_layers": 1, "hidden_size": 32}
    trainer = trainer_of(subject_of("llama", **small), teacher, {"hidden": 1.0})
    began = trainer.objective.projection.weight.detach().clone()
    for _ in range(3):
        trainer.step()
    write_checkpoint(tmp_path, trainer.kept, trainer.optimizer, {"step": trainer.done})
    after = trainer.step()
    again = trainer_of(subject_of("llama", **small), teacher, {"hidden": 1.0})
    assert torch.equal(again.objective.projection.weight, began)  # drawn by the seed alone
    state = read_checkpoint(tmp_path, again.pupil.asked, again.kept, again.optimizer)
    assert not torch.equal(again.objective.projection.weight, began)
    again.done = state["step"]
    assert again.step() == after


def test_the_attention_asked_for_its_maps_is_given_back(subject_of: Callable[..., Subject]) -> None:
    teacher, student = subject_of("llama"), subject_of("llama", num_hidden_layers=1)
    before = student.model.config._attn_implementation
    assert before != "eager"
    trainer = trainer_of(student, teacher, {"attention": 1.0})
    assert {subject.model.config._attn_implementation for subject in (teacher, student)} == {"eager"}
    trainer.finish()
    assert {subject.model.config._attn_implementation for subject in (teacher, student)} == {before}


def test_a_student_that_is_its_teacher_loses_nothing(subject_of: Callable[..., Subject]) -> None:
    teacher = subject_of("llama")
    for subject in (teacher, student := copy.deepcopy(teacher)):
        subject.notes[ORIGIN] = [0, 1]
    step = trainer_of(student, teacher, {"logits": 1.0, "hidden": 1.0, "attention": 1.0}).step()
    assert step.loss == pytest.approx(0.0, abs=1e-5)


def test_gradient_checkpointing_and_layers_go_together(subject_of: Callable[..., Subject]) -> None:
    norms = []
    for on in (False, True):
        teacher, student = subject_of("llama"), subject_of("llama", seed=2, num_hidden_layers=1)
        trainer = trainer_of(student, teacher, {"hidden": 1.0, "attention": 1.0})
        if on:
            student.model.gradient_checkpointing_enable({"use_reentrant": False})
        norms.append(trainer.step().norm)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_later_stage_reads_on_and_begins_its_rate_anew(subject_of: Callable[..., Subject]) -> None:
    teacher = subject_of("llama")
    early = trainer_of(subject_of("llama", seed=2), teacher, {})
    for _ in range(5):
        early.step()
    late = trainer_of(subject_of("llama", seed=2), teacher, {}, first=5)
    assert torch.equal(late._batch(0), early._batch(5))
    step = late.step()
    assert step.number == 5
    assert step.rate == trainer_of(subject_of("llama", seed=2), teacher, {}).step().rate


def test_layers_that_cannot_be_seen_end_in_a_card(
    subject_of: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = subject_of("llama"), subject_of("llama", num_hidden_layers=1)
    inner = student.model.forward

    def blind(**asks: Any) -> Any:
        found = inner(**asks)
        found.hidden_states = None
        return found

    monkeypatch.setattr(student.model, "forward", blind)
    with pytest.raises(RecipeError) as refused:
        trainer_of(student, teacher, {"hidden": 1.0})
    assert refused.value.field == "losses.hidden"
