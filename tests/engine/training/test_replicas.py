"""Two processes on one machine train as one does: gradients, weights, what stops them, and what ends one of them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backend.engine.training import replicas as module
from backend.engine.training.replicas import ALONE, ReplicaLost, Replicas, Stopped, join
from backend.engine.training.text import Windows
from backend.engine.training.trainer import NotFinite, Trainer
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.techniques.coach import Pupil
from tests.engine.conftest import make_subject
from tests.together import together

CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-5}


def order(calls: int = 1, rate: float = 0.001) -> Training:
    pace = {"tokens": 8 * 16 * 100, "batch": 8, "length": 16, "rate": rate, "accumulate": calls, "clip": 1e6}
    return Training.read({"name": "x", "pace": pace, "losses": {"logits": 1.0, "labels": 0.5}})


def trainer_of(asked: Training, replicas: Replicas) -> Trainer:
    tokens = np.random.default_rng(3).integers(0, 64, 4000).astype(np.int32)
    pupil = Pupil(make_subject(seed=2, num_hidden_layers=1), make_subject(), asked)
    return Trainer(pupil, Windows(tokens, asked.pace.length, 1), torch.float32, replicas=replicas)


def taken(replicas: Replicas, asked: Training, steps: int) -> tuple[list[dict[str, Any]], dict[str, Any], list[Any]]:
    """Gradients of each step, the weights after the last, and what each step told."""
    trainer = trainer_of(asked, replicas)
    gradients: list[dict[str, Any]] = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: gradients.append({name: value.grad.numpy().copy() for name, value in trainer.trained.items()})
    )
    told = [trainer.step() for _ in range(steps)]
    return gradients, {name: value.detach().numpy() for name, value in trainer.trained.items()}, told


def joined(asked: Training, steps: int) -> Any:
    torch.set_num_threads(1)
    return taken(join(), asked, steps)


@pytest.mark.parametrize("calls", [1, 2])
def test_two_processes_are_one(calls: int) -> None:
    asked, steps = order(calls), 6
    gradients, weights, told = taken(ALONE, asked, steps)
    both = together(2, joined, asked, steps)
    assert all(np.array_equal(value, both[1][1][name]) for name, value in both[0][1].items())  # they never part
    for theirs, their_weights, their_told in both:
        for one, two in zip(gradients, theirs, strict=True):
            for name, value in one.items():
                np.testing.assert_allclose(two[name], value, **CLOSE, err_msg=name)
        for name, value in weights.items():
            np.testing.assert_allclose(their_weights[name], value, **CLOSE, err_msg=name)
        for one, two in zip(told, their_told, strict=True):
            assert two.loss == pytest.approx(one.loss, abs=1e-5)
            assert two.norm == pytest.approx(one.norm, rel=1e-4)
            assert two.parts == pytest.approx(one.parts, abs=1e-5)


def by_hand() -> Any:
    """Gradients and numbers that differ by process, in buckets of three numbers."""
    module.BUCKET = 3
    replicas = join()
    mine = float(replicas.rank + 1)
    wide, low, only_first, nowhere = (nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (2,), (3,), (1,)))
    low.data = low.data.to(torch.bfloat16)
    wide.grad, low.grad = torch.full((2, 2), mine), torch.full((2,), mine, dtype=torch.bfloat16)
    if replicas.leads:
        only_first.grad = torch.full((3,), 8.0)
    replicas.average_gradients([wide, low, only_first, nowhere])
    means = replicas.average({"a": torch.tensor(mine), "b": torch.tensor(-mine)})
    weight = torch.full((4,), mine)
    replicas.share([weight, low])
    rows = replicas.own(torch.arange(8).reshape(4, 2)).tolist()
    gradients = [None if value.grad is None else value.grad.flatten().tolist() for value in (wide, low, only_first)]
    said = replicas.agree({"rank": replicas.rank})
    return gradients, nowhere.grad, {name: float(v) for name, v in means.items()}, weight.tolist(), rows, said


def test_the_mean_over_two_processes_by_hand() -> None:
    for rank, (gradients, nowhere, means, weight, rows, said) in enumerate(together(2, by_hand)):
        assert gradients == [[1.5] * 4, [1.5] * 2, [4.0] * 3]
        assert nowhere is None
        assert means == {"a": 1.5, "b": -1.5}
        assert weight == [1.0] * 4
        assert rows == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]][rank]
        assert said == [{"rank": 0}, {"rank": 1}]


def poisoned() -> Any:
    replicas = join()
    trainer = trainer_of(order(), replicas)
    trainer.step()
    if not replicas.leads:
        with torch.no_grad():
            trainer.model.lm_head.weight[0, 0] = float("nan")
    before = [value.clone() for value in trainer.trained.values()]
    try:
        trainer.step()
    except NotFinite as error:
        same = all(
            torch.equal(a, b) for a, b in zip(before, trainer.trained.values(), strict=True) if a.isfinite().all()
        )
        return error.step, trainer.done, same
    return "went on"


def test_a_loss_that_is_not_finite_in_one_stops_all_before_weights_move() -> None:
    assert together(2, poisoned) == [(1, 1, True)] * 2


def led() -> Any:
    replicas = join()
    trainer = trainer_of(order(), replicas)
    if replicas.leads:
        trainer.step()
        replicas.stop()
        replicas.stop()  # said once
        return trainer.done
    try:
        while True:
            trainer.step()
    except Stopped:
        return trainer.done


def test_the_others_stop_at_the_word_of_the_first() -> None:
    assert together(2, led) == [1, 1]


def one_dies(who: int) -> Any:
    replicas = join()
    trainer = trainer_of(order(), replicas)
    trainer.step()
    if replicas.rank == who:
        os._exit(7)
    try:
        trainer.step()
    except ReplicaLost as error:
        return str(error)
    return "went on"


@pytest.mark.parametrize("who", [0, 1])
def test_when_one_dies_the_other_ends_with_a_reason(who: int) -> None:
    results = together(2, one_dies, who)
    assert results[who] == 7
    assert "another process of this training has ended" in results[1 - who]


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    assert Replicas(0, 2).part(order(2)).pace.batch == 4
    assert ALONE.part(order()) == order()
    for count, calls in ((3, 1), (8, 2)):
        with pytest.raises(RecipeError) as refused:
            Replicas(0, count).part(order(calls))
        assert refused.value.field == "pace.batch"
        assert f"{count} x {calls}" in refused.value.allowed


def test_alone_there_is_nobody_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join() is ALONE
    ALONE.go_on()
    ALONE.stop()
    ALONE.go_on()
    assert ALONE.agree(3) == [3]
