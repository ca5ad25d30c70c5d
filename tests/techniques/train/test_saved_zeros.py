"""A model that was thinned while it trained is saved as any other, and its zeros are found when it is loaded again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from backend.catalog import model_facts, resolve
from backend.engine.change import change
from backend.engine.load import load
from backend.engine.memory import MemoryMeter
from backend.engine.saved.write import write_saved_model
from backend.engine.training.text import Windows
from backend.engine.training.trainer import Trainer
from backend.recipe.recipe import Recipe
from backend.recipe.training import Training
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil
from backend.techniques.registry import read_back
from backend.techniques.train.thinning import matrices

METHODS: dict[str, dict[str, Any]] = {
    "gradual_magnitude": {"sparsity": 0.9, "end": 0.75, "every": 2},
    "lora": {"rank": 4},
}


def trained(subject: Subject, kind: str) -> Subject:
    asked = Training.read({
        "name": "try",
        "methods": {kind: METHODS[kind]},
        "losses": {"logits": 0.0, "labels": 1.0},
        "pace": {"tokens": 4 * 256, "batch": 8, "length": 32, "rate": 0.01, "precision": "fp32"},
    })  # fmt: skip
    tokens = (np.arange(4000, dtype=np.int32) * 7) % 61 + 1
    trainer = Trainer(Pupil(subject, None, asked), Windows(tokens, 32, 1), torch.float32)
    for _ in range(4):
        trainer.step()
    trainer.finish()
    return subject


@pytest.mark.parametrize("kind", sorted(METHODS))
@pytest.mark.parametrize("shape", ["tiny_llama", "tiny_moe"])
def test_transformers_loads_what_was_trained(
    request: pytest.FixtureRequest, tmp_path: Path, storyteller_tokenizer: Any, kind: str, shape: str
) -> None:
    subject = trained(request.getfixturevalue(shape), kind)
    subject.tokenizer, subject.facts = storyteller_tokenizer, replace(subject.facts, name="some/tiny")
    folder = tmp_path / "model"
    write_saved_model(subject, Recipe(), folder, trained=kind)
    ids = torch.tensor([subject.sample_ids])
    again: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        torch.testing.assert_close(again(input_ids=ids).logits, subject.model(input_ids=ids).logits, atol=1e-4, rtol=0)
    loaded = load(resolve(str(folder)), device="cpu")
    zeros = [float((layer.weight == 0).float().mean()) for layer in matrices(loaded).values()]
    assert zeros == pytest.approx([0.9 if kind == "gradual_magnitude" else 0.0] * len(zeros), abs=2e-3)


def test_sparse_kernels_need_no_switch_that_made_the_zeros(
    tiny_llama: Subject, tmp_path: Path, storyteller_tokenizer: Any
) -> None:
    subject = trained(tiny_llama, "gradual_magnitude")
    subject.tokenizer, subject.facts = storyteller_tokenizer, replace(subject.facts, name="some/tiny")
    write_saved_model(subject, Recipe(), tmp_path / "model", trained="thinned")
    ref = resolve(str(tmp_path / "model"))
    recipe = Recipe.read({"switches": {"sparse_kernels": {"gain": 0.0}}})
    recipe.check(model_facts(ref))
    loaded = load(ref, device="cpu")
    change(loaded, recipe, lambda share, text: None, MemoryMeter())
    effect = read_back(loaded, recipe.pipeline[0])
    assert effect.took_effect
    assert effect.facts["sparse_layers"] == effect.facts["linear_layers"] == 21
