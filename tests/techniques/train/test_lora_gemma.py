"""Adapters on a real model: a few steps on English heal its first layers a little, and merged they are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.catalog import resolve
from backend.engine.load import load
from backend.engine.training.text import read_documents, read_lesson
from backend.engine.training.trainer import Trainer
from backend.recipe.training import Training
from backend.techniques.coach import Pupil
from backend.techniques.registry import apply_switch
from backend.techniques.train.lora import adapted

pytestmark = pytest.mark.real

STEPS = 5


def test_a_few_steps_help_and_merged_it_is_the_same_model(gemma_folder: Path) -> None:
    asked = Training.read({
        "model": str(gemma_folder),
        "name": "try",
        "student": {"switches": {"drop_layers": {"remove": "3-17"}}},
        "methods": {"lora": {"rank": 8}},
        "losses": {"logits": 0.0, "labels": 1.0},
        "pace": {"tokens": 256, "batch": 1, "length": 32, "rate": 3e-3, "warmup": 0.0},
    })  # fmt: skip
    ref = resolve(asked.model)
    subject = load(ref, device="cpu", dtype=torch.float32)
    for switch in asked.student.pipeline:
        apply_switch(subject, switch)
    lesson = read_lesson(subject, read_documents(ref, "", 1), 600, 32, 1, lambda share, text: None)
    trainer = Trainer(Pupil(subject, None, asked), lesson.training, torch.float32)
    assert len(adapted(subject.model)) == 3 * 7
    model = subject.model.eval()
    ids = lesson.held_out.batch(0, 2)
    before = _loss(model, ids)
    model.train()
    for _ in range(STEPS):
        trainer.step()
    model.eval()
    after = _loss(model, ids)
    assert after < before - 0.5, (before, after)
    with torch.inference_mode():
        unmerged = model(input_ids=ids[:1], use_cache=False).logits
        trainer.finish()
        torch.testing.assert_close(model(input_ids=ids[:1], use_cache=False).logits, unmerged, atol=1e-3, rtol=1e-4)
    assert not adapted(model)


@torch.inference_mode()
def _loss(model: torch.nn.Module, ids: torch.Tensor) -> float:
    """Nats a token over windows (B, T + 1) of text that is not trained on."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))
