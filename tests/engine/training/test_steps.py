"""One optimizer step: its rate, its gradient over several calls, its stop at what is no number."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backend.engine.training.loss import soft_loss
from backend.engine.training.text import Windows
from backend.engine.training.trainer import NotFinite, Trainer, rate_at
from backend.recipe.losses import Losses
from backend.recipe.training import Training
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil
from backend.techniques.registry import apply_switch


def asked(**fields: Any) -> Training:
    pace = {"tokens": 640, "batch": 4, "length": 16, "rate": 0.01} | fields.pop("pace", {})
    return Training.read({"name": "x", "pace": pace} | fields)


def trainer_of(student: Subject, teacher: Subject | None, order: Training) -> Trainer:
    vocab = student.facts.vocab
    tokens = np.random.default_rng(3).integers(0, vocab, 2000).astype(np.int32)
    return Trainer(Pupil(student, teacher, order), Windows(tokens, order.pace.length, 1), torch.float32)


def test_the_rate_rises_falls_as_a_cosine_and_ends_at_the_floor() -> None:
    order = asked(pace={"tokens": 64 * 100, "rate": 1.0, "warmup": 0.1, "floor": 0.2})
    assert order.steps == 100
    assert rate_at(order, 0) == pytest.approx(0.1)
    assert rate_at(order, 9) == pytest.approx(1.0)
    assert rate_at(order, 10) == pytest.approx(1.0)
    assert rate_at(order, 55) == pytest.approx(0.2 + 0.8 * 0.5)
    assert rate_at(order, 100) == pytest.approx(0.2)


def test_the_soft_loss_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    share = float(torch.sigmoid(torch.tensor(1.0)))  # at temperature 2
    by_hand = 4 * (share * np.log(share / 0.5) + (1 - share) * np.log((1 - share) / 0.5))
    assert soft_loss(student, teacher, Losses(temperature=2.0)).item() == pytest.approx(by_hand, rel=1e-5)
    assert soft_loss(teacher, teacher, Losses(temperature=3.0)).item() == pytest.approx(0.0, abs=1e-7)


def test_several_calls_of_a_step_are_one_call(subject_of: Callable[..., Subject]) -> None:
    teacher = subject_of("llama")
    after = []
    for calls in (1, 4):
        student = copy.deepcopy(subject_of("llama", num_hidden_layers=1))
        trainer = trainer_of(student, teacher, asked(pace={"accumulate": calls}))
        steps = [trainer.step() for _ in range(2)]
        after.append(steps[-1])
    one, four = after
    assert four.loss == pytest.approx(one.loss, rel=1e-4)
    assert four.norm == pytest.approx(one.norm, rel=1e-3)


def test_it_learns_from_the_teacher_and_the_teacher_stays(subject_of: Callable[..., Subject]) -> None:
    teacher, student = subject_of("llama"), subject_of("llama", num_hidden_layers=1)
    before = copy.deepcopy(teacher.model.state_dict())
    trainer = trainer_of(student, teacher, asked(pace={"tokens": 64 * 60}))
    losses = [trainer.step().loss for _ in range(60)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, before[name])
    trainer.finish()
    assert not student.model.training
    assert not any(value.requires_grad for value in student.model.parameters())


def test_what_is_no_number_stops_it_before_the_weights_move(subject_of: Callable[..., Subject]) -> None:
    student = subject_of("llama")
    trainer = trainer_of(student, None, asked(losses={"logits": 0.0, "labels": 1.0}))
    trainer.step()
    with torch.no_grad():
        student.model.get_input_embeddings().weight[:] = float("nan")
    before = [value.clone() for value in student.model.parameters() if value.isfinite().all()]
    with pytest.raises(NotFinite, match="at step 1"):
        trainer.step()
    now = [value for value in student.model.parameters() if value.isfinite().all()]
    assert len(now) == len(before)
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
    assert trainer.done == 1


def test_zeros_of_a_pruned_student_stay(subject_of: Callable[..., Subject]) -> None:
    student = subject_of("llama")
    order = asked(student={"switches": {"magnitude": {"ratio": 0.5}}}, losses={"logits": 0.0, "labels": 1.0})
    apply_switch(student, order.student.pipeline[0])
    zeros = {name: layer.weight == 0 for name, layer in student.linears().items()}
    trainer = trainer_of(student, None, order)
    for _ in range(3):
        trainer.step()
    for name, layer in student.linears().items():
        assert bool((layer.weight[zeros[name]] == 0).all()), name
        assert isinstance(layer, nn.Linear)


def test_gradient_checkpointing_gives_the_same_step(subject_of: Callable[..., Subject]) -> None:
    seen = []
    for on in (False, True):
        order = asked(losses={"logits": 0.0, "labels": 1.0}, pace={"checkpointing": on})
        trainer = trainer_of(copy.deepcopy(subject_of("llama")), None, order)
        seen.append(trainer.step())
    assert seen[0].norm == pytest.approx(seen[1].norm, rel=1e-5)
