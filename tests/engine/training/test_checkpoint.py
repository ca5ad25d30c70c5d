"""The checkpoint: whole or not there, and all that is needed to go on as if nothing had been."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backend.engine.training.checkpoint import read_checkpoint, write_checkpoint
from backend.recipe.base import RecipeError
from backend.techniques.base import Subject
from backend.trainingfolder import checkpoints
from tests.engine.training.test_steps import asked, trainer_of

ORDER = asked(losses={"logits": 0.0, "labels": 1.0})


def test_who_goes_on_from_it_takes_the_same_steps(subject_of: Callable[..., Subject], tmp_path: Path) -> None:
    whole = trainer_of(copy.deepcopy(subject_of("llama")), None, ORDER)
    fresh = copy.deepcopy(subject_of("llama"))
    for _ in range(3):
        whole.step()
    write_checkpoint(tmp_path, whole.model, whole.optimizer, {"step": 3})
    rest = [whole.step().loss for _ in range(3)]
    resumed = trainer_of(fresh, None, ORDER)
    state = read_checkpoint(tmp_path, ORDER, resumed.model, resumed.optimizer)
    assert state is not None
    resumed.done = state["step"]
    assert [resumed.step().loss for _ in range(3)] == rest
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_only_the_last_whole_one_is_kept_and_halves_are_cleared_away(
    subject_of: Callable[..., Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(subject_of("llama"), None, ORDER)
    (tmp_path / "checkpoint-9.part").mkdir()
    for step in (1, 2, 2):
        assert write_checkpoint(tmp_path, trainer.model, trainer.optimizer, {"step": step}) > 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backend.engine.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path, trainer.model, trainer.optimizer, {"step": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_there_is_none_or_it_is_broken(subject_of: Callable[..., Subject], tmp_path: Path) -> None:
    trainer = trainer_of(subject_of("llama"), None, ORDER)
    assert read_checkpoint(tmp_path, ORDER, trainer.model, trainer.optimizer) is None
    write_checkpoint(tmp_path, trainer.model, trainer.optimizer, {"step": 1})
    (checkpoints(tmp_path)[-1] / "state.json").write_text("{")
    with pytest.raises(RecipeError, match="begin anew"):
        read_checkpoint(tmp_path, ORDER, trainer.model, trainer.optimizer)
