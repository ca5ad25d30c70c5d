"""Models of experts, saved and loaded again: plain ones by transformers alone, packed ones by this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from backend.catalog import model_facts, resolve
from backend.engine.load import load
from backend.engine.saved.write import write_saved_model
from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch


@pytest.fixture(scope="module")
def moe_folder(tmp_path_factory: pytest.TempPathFactory, storyteller_tokenizer: Any) -> Path:
    """A seeded Mixtral of two layers, four experts and the storyteller's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-moe"
    torch.manual_seed(4)
    config = MixtralConfig(
        vocab_size=448, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=4, initializer_range=0.15, sliding_window=None,
        tie_word_embeddings=True, max_position_embeddings=256,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(folder)
    storyteller_tokenizer.save_pretrained(folder)
    return folder


def changed(folder: Path, switches: dict[str, Any]) -> tuple[Subject, Recipe]:
    subject, recipe = load(resolve(str(folder)), device="cpu"), Recipe.read({"switches": switches})
    subject.sample_ids = list(range(1, 65))
    for switch in recipe.pipeline:
        apply_switch(subject, switch)
    return subject, recipe


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.arange(1, 18)[None], use_cache=False).logits
    return found


@pytest.mark.parametrize(
    "switches",
    [{"prune_experts": {"count": 1}}, {"expert_top_k": {"count": 1}}, {"prune_heads": {"ratio": 0.5}}],
    ids=["fewer", "top-1", "heads"],
)
def test_transformers_alone_loads_it_again(moe_folder: Path, tmp_path: Path, switches: dict[str, Any]) -> None:
    subject, recipe = changed(moe_folder, switches)
    write_saved_model(subject, recipe, tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(again), logits(subject.model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "switches",
    [{"quantize_experts": {"level": "int8"}}, {"int8_weight_only": {}}, {"cast": {}}],
    ids=["experts", "all", "bf16"],
)
def test_packed_experts_come_back_as_they_were(moe_folder: Path, tmp_path: Path, switches: dict[str, Any]) -> None:
    subject, recipe = changed(moe_folder, switches)
    write_saved_model(subject, recipe, tmp_path / "saved")
    again = load(resolve(str(tmp_path / "saved")))
    torch.testing.assert_close(logits(again.model), logits(subject.model))
    assert (again.facts.experts, again.facts.used_experts, again.facts.expert_ffn) == (4, 2, 64)


def test_what_no_config_describes_is_not_saved(moe_folder: Path, tmp_path: Path) -> None:
    subject, recipe = changed(moe_folder, {"merge_experts": {"count": 4}})
    with pytest.raises(RecipeError, match="one dense part"):
        write_saved_model(subject, recipe, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_the_facts_count_what_the_model_has(moe_folder: Path) -> None:
    facts = model_facts(resolve(str(moe_folder)))
    model = load(resolve(str(moe_folder)), device="cpu").model
    assert facts.parameters == sum(parameter.numel() for parameter in model.parameters())
    idle = sum(p.numel() for n, p in model.named_parameters() if ".experts.0." in n or ".experts.1." in n)
    assert facts.idle_parameters == idle
