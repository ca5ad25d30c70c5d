"""Weights set to zero while a model trains: the schedule by hand, the zeros counted, the scores followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.engine.training.checkpoint import read_checkpoint, write_checkpoint
from backend.engine.training.text import Windows
from backend.engine.training.trainer import Trainer
from backend.recipe.base import RecipeError
from backend.recipe.method import read_method
from backend.recipe.methods.gradual_magnitude import GradualMagnitude
from backend.recipe.methods.movement import Movement
from backend.recipe.switch import read_switch
from backend.recipe.training import Training
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil, all_coaches
from backend.techniques.registry import apply_switch, read_back
from backend.techniques.train.movement import ASIDE, SCORES
from backend.techniques.train.thinning import KEPT, least, matrices, sparsity, thinned
from backend.trainforecast import forecast_training

KINDS = ("gradual_magnitude", "movement")
QUICK = {"sparsity": 0.6, "begin": 0.0, "end": 0.75, "every": 2}


def training(methods: dict[str, Any], **fields: Any) -> Training:
    pace = {"tokens": 8 * 256, "batch": 8, "length": 32, "rate": 0.01, "precision": "fp32"}
    losses = {"logits": 0.0, "labels": 1.0}
    return Training.read({"name": "try", "methods": methods, "pace": pace, "losses": losses} | fields)


def trainer(subject: Subject, asked: Training) -> Trainer:
    for switch in asked.student.pipeline:
        apply_switch(subject, switch)
    tokens = (np.arange(4000, dtype=np.int32) * 7) % 61 + 1
    return Trainer(Pupil(subject, None, asked), Windows(tokens, asked.pace.length, 1), torch.float32)


def zeros_of(subject: Subject) -> list[float]:
    """Share of zeros of every matrix."""
    return [float((layer.weight == 0).float().mean()) for layer in matrices(subject).values()]


# The schedule


def test_the_schedule_is_the_papers() -> None:
    method = GradualMagnitude(sparsity=0.8, begin=0.1, end=0.6)
    by_hand = {0: 0.0, 10: 0.0, 20: 0.3904, 35: 0.7, 60: 0.8, 99: 0.8}  # 0.8 (1 - left^3): left 1, 1, 0.8, 0.5, 0, 0
    for taken, share in by_hand.items():
        assert method.sparsity_at(taken, 100) == pytest.approx(share), taken
    assert method.sparsity_at(35, 100, before=0.2) == pytest.approx(0.725)  # 0.8 - 0.6 / 8


def test_it_chooses_every_so_often_and_at_the_very_end() -> None:
    method = GradualMagnitude(sparsity=0.8, begin=0.1, end=0.6, every=15)
    assert [taken for taken in range(101) if method.due(taken, 100)] == [10, 25, 40, 55, 60]
    assert method.span(1) == (0, 1)
    assert GradualMagnitude(begin=0.98, end=0.99).span(10) == (9, 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("shape", ["llama", "gemma", "moe"])
def test_at_the_end_the_zeros_that_were_asked_for_are_there(
    build: Callable[..., Subject], kind: str, scope: str, shape: str
) -> None:
    subject = build(shape)
    names = set(subject.model.state_dict())
    run = trainer(subject, training({kind: QUICK | {"scope": scope}}))
    told = []
    for taken in range(1, 9):
        step = run.step()
        told.append(step.told["sparsity"])
        assert told[-1] == pytest.approx(sparsity(thinned(subject)), abs=1e-9), taken
    asked = [run.pupil.asked.methods[kind].sparsity_at(taken, 8) for taken in range(1, 9)]  # type: ignore[attr-defined]
    assert told == pytest.approx([0.0, asked[1], asked[1], asked[3], asked[3], 0.6, 0.6, 0.6], abs=2e-3)
    run.finish()
    shares = zeros_of(subject)
    assert set(subject.model.state_dict()) == names
    if scope == "layer":
        assert shares == pytest.approx([0.6] * len(shares), abs=1e-3)
    else:
        assert max(shares) - min(shares) > 0.01
    head = subject.model.get_output_embeddings().weight
    assert float((head == 0).float().mean()) < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_was_killed_goes_on_the_same(tmp_path: Path, build: Callable[..., Subject], kind: str) -> None:
    asked = training({kind: QUICK})
    whole, first, second = (trainer(build("llama"), asked) for _ in range(3))
    expected = [whole.step() for _ in range(8)]
    seen = [first.step() for _ in range(5)]
    write_checkpoint(tmp_path, first.model, first.optimizer, {"step": 5})
    read_checkpoint(tmp_path, asked, second.model, second.optimizer)
    second.done = 5
    seen += [second.step() for _ in range(3)]
    assert [step.loss for step in seen] == [step.loss for step in expected]
    assert [step.told for step in seen] == [step.told for step in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pruned_student_is_thinned_further(tiny_llama: Subject, kind: str) -> None:
    cut = {"switches": {"prune_heads": {"ratio": 0.25}, "prune_neurons": {"ratio": 0.25}}}
    run = trainer(tiny_llama, training({kind: QUICK}, student=cut))
    for _ in range(8):
        run.step()
    run.finish()
    assert sum(zeros_of(tiny_llama)) / len(zeros_of(tiny_llama)) == pytest.approx(0.6, abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_zeros_can_be_left_out_by_sparse_kernels(tiny_llama: Subject, kind: str) -> None:
    run = trainer(tiny_llama, training({kind: QUICK | {"sparsity": 0.9}}))
    for _ in range(8):
        run.step()
    run.finish()
    switch = read_switch("sparse_kernels", {"gain": 0.0})
    apply_switch(tiny_llama, switch)
    effect = read_back(tiny_llama, switch)
    assert effect.took_effect
    assert effect.facts["sparse_layers"] == 21


# By magnitude


def test_a_zero_never_comes_back(tiny_llama: Subject) -> None:
    run = trainer(tiny_llama, training({"gradual_magnitude": QUICK}))
    gone = None
    for _ in range(8):
        run.step()
        now = [layer.weight == 0 for layer in thinned(tiny_llama).values()]
        if gone is not None:
            assert all(bool((after | ~before).all()) for before, after in zip(gone, now, strict=True))
        gone = now


def test_it_goes_on_from_the_zeros_that_are_there(tiny_llama: Subject) -> None:
    student = {"switches": {"magnitude": {"ratio": 0.4, "scope": "global"}}}
    run = trainer(tiny_llama, training({"gradual_magnitude": QUICK}, student=student))
    before = [layer.weight == 0 for layer in thinned(tiny_llama).values()]
    for _ in range(8):
        run.step()
    after = [layer.weight == 0 for layer in thinned(tiny_llama).values()]
    assert all(bool((now | ~then).all()) for then, now in zip(before, after, strict=True))
    assert min(float(mask.float().mean()) for mask in after) == pytest.approx(0.6, abs=1e-3)


def test_fewer_zeros_than_there_are_is_refused(tiny_llama: Subject) -> None:
    student = {"switches": {"magnitude": {"ratio": 0.7}}}
    with pytest.raises(RecipeError, match="more than the 70%"):
        trainer(tiny_llama, training({"gradual_magnitude": QUICK}, student=student))


def test_equal_ones_go_in_their_order() -> None:
    assert least(torch.tensor([1.0, 0.0, 1.0, -2.0, 1.0]), 3).tolist() == [True, True, False, True, False]
    assert not least(torch.ones(3), 0).any()


# By movement


def test_scores_and_what_comes_back_by_hand(tiny_llama: Subject) -> None:
    method = Movement(sparsity=0.5, begin=0.0, end=1.0, every=1)
    asked = training({"movement": method.model_dump()})
    pupil, coach = Pupil(tiny_llama, None, asked), all_coaches()[Movement]
    layer = torch.nn.Linear(4, 1, bias=False)
    layer.weight = torch.nn.Parameter(torch.tensor([[4.0, -3.0, 2.0, 1.0]]))
    tiny_llama.model.model.layers[0].mlp.up_proj = layer  # type: ignore[union-attr]
    coach.begin(pupil, method)

    def step(number: int, gradient: list[float]) -> None:
        layer.weight.grad = torch.tensor([gradient])
        coach.before_step(pupil, method, number)
        coach.after_step(pupil, method, number)

    step(6, [1.0, 1.0, -1.0, -1.0])  # scores -4, 3, 2, 1; after 7 of 8 steps 0.5 (1 - 1/512) of 4 are 2
    assert getattr(layer, SCORES).tolist() == [[-4.0, 3.0, 2.0, 1.0]]
    assert layer.weight.tolist() == [[0.0, -3.0, 2.0, 0.0]]  # the largest weight is out
    assert getattr(layer, ASIDE).tolist() == [[4.0, 0.0, 0.0, 1.0]]
    step(7, [-2.0, -1.0, 1.0, 0.0])  # adds 8, -3, -2, 0: scores 4, 0, 0, 1
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[0.0, -1.0, 1.0, 0.0]]  # none for what is out
    assert layer.weight.tolist() == [[4.0, 0.0, 0.0, 1.0]]  # with the values that they left with
    assert getattr(layer, KEPT).tolist() == [[True, False, False, True]]
    step(8, [1.0, 1.0, 1.0, 1.0])  # the schedule is over
    assert getattr(layer, SCORES).tolist() == [[4.0, 0.0, 0.0, 1.0]]


def test_it_takes_other_weights_than_magnitude_does(build: Callable[..., Subject]) -> None:
    masks = []
    for kind in KINDS:
        subject = build("llama")
        run = trainer(subject, training({kind: QUICK}))
        for _ in range(8):
            run.step()
        masks.append(torch.cat([(layer.weight == 0).flatten() for layer in thinned(subject).values()]))
    assert float((masks[0] ^ masks[1]).float().mean()) > 0.1


# What is refused, and what is said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fields", [{"sparsity": 0.0}, {"sparsity": 1.0}, {"every": 0}, {"begin": 0.6, "end": 0.5}, {"scope": "row"}, []]
)
def test_bad_settings_are_said(kind: str, fields: Any) -> None:
    with pytest.raises(RecipeError) as failed:
        read_method(kind, fields)
    assert failed.value.field.startswith(f"methods.{kind}")


def test_what_cannot_stand_beside_it_is_refused() -> None:
    with pytest.raises(RecipeError, match="both choose"):
        training({"gradual_magnitude": {}, "movement": {}})
    with pytest.raises(RecipeError, match="no score"):
        training({"movement": {}}, student={"switches": {"magnitude": {}}})
    for kind in KINDS:
        with pytest.raises(RecipeError, match=r"looks\.patience 0"):
            training({kind: {}}, looks={"patience": 3})


@pytest.mark.parametrize("kind", KINDS)
def test_the_label_says_that_speed_stays(kind: str) -> None:
    assert "70% zeros (dense: the same speed)" in read_method(kind, {"sparsity": 0.7}).label


@pytest.mark.parametrize(("kind", "bytes_a_weight"), [("gradual_magnitude", 1), ("movement", 9)])
def test_its_memory_is_forecast(tiny_llama: Subject, kind: str, bytes_a_weight: int) -> None:
    run = trainer(tiny_llama, training({kind: {}}))
    held = sum(buffer.nbytes for name, buffer in run.model.named_buffers() if "train_" in name)
    weights = sum(layer.weight.numel() for layer in thinned(tiny_llama).values())
    assert held == bytes_a_weight * weights
    predicted = forecast_training(run.pupil.asked, tiny_llama.facts, tiny_llama.facts).method_bytes
    assert held <= predicted == bytes_a_weight * tiny_llama.facts.parameters
