"""Adapters: they alone train, they go on after a kill, and merged they are the same model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from backend.engine.training.checkpoint import read_checkpoint, write_checkpoint
from backend.engine.training.text import Windows
from backend.engine.training.trainer import Trainer
from backend.parts import pruned
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.method import read_method
from backend.recipe.training import Training
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil
from backend.techniques.registry import apply_switch
from backend.techniques.train.lora import adapted
from backend.trainforecast import forecast_training

PRUNED = {"switches": {"prune_heads": {"ratio": 0.25}, "prune_neurons": {"ratio": 0.25}}}


def training(methods: dict[str, Any], **fields: Any) -> Training:
    pace = {"tokens": 8 * 256, "batch": 8, "length": 32, "rate": 0.01, "precision": "fp32"} | fields.pop("pace", {})
    losses = {"logits": 0.0, "labels": 1.0}
    return Training.read({"name": "try", "methods": methods, "pace": pace, "losses": losses} | fields)


def trainer(subject: Subject, asked: Training) -> Trainer:
    """A trainer on text that can be learned: each token follows from the one before."""
    for switch in asked.student.pipeline:
        apply_switch(subject, switch)
    tokens = (np.arange(4000, dtype=np.int32) * 7) % 61 + 1
    return Trainer(Pupil(subject, None, asked), Windows(tokens, asked.pace.length, 1), torch.float32)


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma", "moe"])
def test_only_adapters_train_and_merged_they_are_the_same_model(
    build: Callable[..., Subject], logits: Callable[[Subject], Tensor], shape: str
) -> None:
    subject = build(shape)
    model, names = subject.model, set(subject.model.state_dict())
    before = {name: value.clone() for name, value in model.named_parameters()}
    run = trainer(subject, training({"lora": {"rank": 4, "alpha": 8}}))
    assert all(".lora_" in name for name in run.trained)
    losses = [run.step().loss for _ in range(8)]
    assert losses[-1] < losses[0] - 0.2, losses
    assert set(run.optimizer.state) == set(run.trained.values())
    model.eval()
    unmerged = logits(subject)
    run.finish()
    assert subject.model is model
    torch.testing.assert_close(logits(subject), unmerged, atol=1e-4, rtol=0)
    assert set(model.state_dict()) == names
    assert not adapted(model)
    assert not hasattr(model, "peft_config")
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert len(moved) == (3 * 4 + 3 * 8 if shape == "moe" else 3 * 7)  # two matrices of each expert


def test_gradients_and_optimizer_are_a_small_part(tiny_llama: Subject, build: Callable[..., Subject]) -> None:
    adapters = trainer(tiny_llama, training({"lora": {"rank": 2}}))
    whole = trainer(build("llama"), training({}))
    for run in (adapters, whole):
        run.step()
    held = [
        sum(v.numel() for state in run.optimizer.state.values() for v in state.values()) for run in (adapters, whole)
    ]
    assert held[0] < held[1] / 8
    assert not [value for value in tiny_llama.model.parameters() if value.grad is not None]  # freed after a step


def test_a_training_that_was_killed_goes_on_the_same(tmp_path: Path, build: Callable[..., Subject]) -> None:
    asked = training({"lora": {"rank": 4}}, student=PRUNED)
    whole, first, second = (trainer(build("llama"), asked) for _ in range(3))
    expected = [whole.step().loss for _ in range(8)]
    seen = [first.step().loss for _ in range(4)]
    write_checkpoint(tmp_path, first.model, first.optimizer, {"step": 4})
    assert read_checkpoint(tmp_path, asked, second.model, second.optimizer) == {"step": 4}
    second.done = 4
    assert seen + [second.step().loss for _ in range(4)] == expected
    for run in (whole, second):
        run.finish()
    for name, value in second.model.named_parameters():
        torch.testing.assert_close(value, whole.model.get_parameter(name), atol=0, rtol=0)


def test_activations_may_be_computed_again(build: Callable[..., Subject]) -> None:
    runs = [trainer(build("llama"), training({"lora": {}}, pace={"checkpointing": again})) for again in (False, True)]
    kept, again = ([run.step().loss for _ in range(3)] for run in runs)
    assert again == pytest.approx(kept, abs=1e-6)


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma", "moe"])
@pytest.mark.parametrize("targets", ["attention", "mlp", "all"])
def test_the_share_that_trains_is_foretold(build: Callable[..., Subject], shape: str, targets: str) -> None:
    subject = build(shape)
    run = trainer(subject, training({"lora": {"rank": 4, "targets": targets}}))
    trained = sum(value.numel() for value in run.trained.values())
    method = run.pupil.asked.methods["lora"]
    assert method.trained_share(subject.facts) == pytest.approx(trained / subject.facts.parameters)


def test_the_share_of_a_pruned_student_is_foretold(tiny_llama: Subject) -> None:
    asked = training({"lora": {"rank": 4}}, student=PRUNED)
    run = trainer(tiny_llama, asked)
    trained = sum(value.numel() for value in run.trained.values())
    left = pruned(tiny_llama.facts, asked.student)
    assert asked.methods["lora"].trained_share(left) == pytest.approx(trained / left.parameters, rel=0.01)
    predicted = forecast_training(asked, tiny_llama.facts, tiny_llama.facts)
    assert predicted.gradient_bytes == pytest.approx(4 * trained, rel=0.01)
    assert predicted.optimizer_bytes == 2 * predicted.gradient_bytes


def gpt2() -> Subject:
    torch.manual_seed(3)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 64, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).eval()
    facts = ModelFacts("tiny-gpt2", "gpt2", 2, 32, 128, 2, 2, 16, 64, 64, 30_000, 2048)
    return Subject(model, None, facts, torch.device("cpu"), sample_ids=list(range(1, 40)))


def test_matrices_that_lie_the_other_way_round_get_adapters_too(logits: Callable[[Subject], Tensor]) -> None:
    subject = gpt2()
    names = set(subject.model.state_dict())
    run = trainer(subject, training({"lora": {"rank": 2}}))
    losses = [run.step().loss for _ in range(6)]
    assert losses[-1] < losses[0]
    subject.model.eval()
    unmerged = logits(subject)
    run.finish()
    torch.testing.assert_close(logits(subject), unmerged, atol=1e-4, rtol=0)
    assert set(subject.model.state_dict()) == names


def test_zeros_stay_out_of_it(tiny_llama: Subject) -> None:
    with pytest.raises(RecipeError, match="fill its zeros"):
        training({"lora": {}}, student={"switches": {"magnitude": {}}})
    with pytest.raises(RecipeError, match="fill its zeros"):
        training({"lora": {}, "gradual_magnitude": {}})
    with pytest.raises(RecipeError, match="do not train"):
        training({"movement": {}, "lora": {}})


@pytest.mark.parametrize("fields", [{"rank": 0}, {"alpha": 0}, {"targets": "head"}, {"dropout": 0.1}, 3])
def test_bad_settings_are_said(fields: Any) -> None:
    with pytest.raises(RecipeError) as failed:
        read_method("lora", fields)
    assert failed.value.field.startswith("methods.lora")


def test_a_rank_beyond_the_smallest_matrix_is_refused(build: Callable[..., Subject]) -> None:
    with pytest.raises(RecipeError, match="at most 16"):  # one key-value head of 16
        trainer(build("gemma"), training({"lora": {"rank": 17}}))


def test_a_model_without_such_matrices_is_refused(tiny_llama: Subject) -> None:
    for layer in tiny_llama.model.model.layers:  # type: ignore[union-attr]
        layer.mlp = torch.nn.Identity()  # type: ignore[union-attr, assignment]
    with pytest.raises(RecipeError, match="linear layers in its mlp"):
        trainer(tiny_llama, training({"lora": {"targets": "mlp"}}))


def test_a_share_is_never_more_than_all() -> None:
    facts = replace(gpt2().facts, parameters=10)
    assert read_method("lora", {"rank": 64}).trained_share(facts) == 1.0
