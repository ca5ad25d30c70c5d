"""Every training preset to its end, with few tokens: what comes out is opened by transformers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from backend.recipe.lesson import all_lessons
from backend.recipe.training import Training
from backend.trainlane import TrainLane

STEPS, STEPS_OF_GEMMA = 8, 4


def brief(name: str, steps: int = STEPS) -> Training:
    """The preset with two short windows a step, and looks at the beginning and the end only."""
    data = all_lessons()[name].training.model_dump(mode="json")
    data["pace"] |= {"tokens": steps * 64, "batch": 2, "length": 32, "accumulate": 1}
    data["looks"] |= {"windows": 1, "questions": 0, "every": 1_000}
    return Training.read(data)


def of(model: str) -> list[str]:
    return sorted(name for name, lesson in all_lessons().items() if lesson.training.model == model)


@pytest.mark.parametrize("name", of("storyteller"))
def test_it_is_trained_and_opened_elsewhere(name: str, home: Path) -> None:
    train(brief(name))


@pytest.mark.real
@pytest.mark.parametrize("name", of("gemma")[:1])  # each takes a minute; the other's method is tried in test_qat.py
def test_it_is_trained_and_opened_elsewhere_on_gemma(name: str, gemma_home: Path) -> None:
    train(brief(name, STEPS_OF_GEMMA))


@pytest.mark.real
@pytest.mark.parametrize("name", of("minilm"))
def test_it_is_trained_and_opened_elsewhere_on_minilm(name: str, minilm_home: Path) -> None:
    train(brief(name))


def train(asked: Training) -> None:
    """All steps, the saved folder, and a call of the library's own model."""
    lane = TrainLane("student", asked.model_dump(mode="json"), lambda share, text: None)
    lane.load()
    reply = lane.train(seconds=0.0)
    while not reply["ended"]:
        reply = lane.train(seconds=0.0)
    assert reply["step"] == asked.steps
    saved = lane.save()
    auto = AutoModel if asked.losses.embedding else AutoModelForCausalLM
    model, missing = auto.from_pretrained(saved["folder"], output_loading_info=True)
    unused = "pooler."  # sentence vectors are means: this part of BERT was never read, nor saved
    assert not [key for key in missing["missing_keys"] if not key.startswith(unused)]
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([[1, 2, 3]]))[0]
    assert torch.isfinite(found).all()
