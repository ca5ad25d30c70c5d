"""A model that was made smaller, saved and loaded again by transformers alone: config and weights must agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from backend.catalog import model_facts, resolve
from backend.recipe.switch import Switch, read_switch
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.registry import apply_switch, read_back

Logits = Callable[[Subject], Tensor]
Build = Callable[..., Subject]
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "prune_heads", {"ratio": 0.5}),
    ("gqa", "prune_heads", {"ratio": 0.5}),
    ("gemma", "prune_heads", {"ratio": 0.5}),
    ("llama", "prune_neurons", {"ratio": 0.25}),
    ("gemma", "prune_neurons", {"ratio": 0.25}),
    ("llama", "drop_layers", {"count": 1}),
    ("gemma", "drop_layers", {"count": 1}),
    ("llama", "kv_heads", {"count": 2}),
]


def reload(subject: Subject, folder: Path) -> None:
    """Save the model, and put what transformers loads from there in its place."""
    subject.model.save_pretrained(folder)
    subject.model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    subject.model.eval()
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert not found["mismatched_keys"]


@pytest.mark.parametrize(("shape", "kind", "fields"), CASES)
def test_it_writes_the_same_after_a_reload(
    build: Build, logits: Logits, tmp_path: Path, shape: str, kind: str, fields: dict[str, Any]
) -> None:
    switch: Switch = read_switch(kind, fields)
    subject = build(shape)
    whole = logits(subject)
    apply_switch(subject, switch)
    before = logits(subject)
    assert not torch.allclose(before, whole)
    reload(subject, tmp_path)
    torch.testing.assert_close(logits(subject), before)
    assert read_back(subject, switch).took_effect


def test_the_saved_folder_is_a_model_that_can_be_raced(build: Build, tmp_path: Path) -> None:
    subject = build("llama")
    apply_switch(subject, read_switch("prune_heads", {"ratio": 0.5}))
    subject.model.save_pretrained(tmp_path)
    facts = model_facts(resolve(str(tmp_path)))
    assert (facts.heads, facts.kv_heads, facts.head_dim, facts.hidden) == (2, 2, 16, 64)


def test_a_family_whose_config_knows_no_head_size_keeps_it(build: Build, logits: Logits, tmp_path: Path) -> None:
    torch.manual_seed(8)
    sizes = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256)
    subject = build("gqa")
    subject.model = Qwen2ForCausalLM(config).eval()
    apply_switch(subject, read_switch("prune_heads", {"ratio": 0.5}))
    before = logits(subject)
    reload(subject, tmp_path)
    torch.testing.assert_close(logits(subject), before)
    assert decoder_layers(subject.model)[0].self_attn.head_dim == 16


@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_what_transformers_refuses_to_reload_is_said_in_the_receipt(build: Build, tmp_path: Path, shape: str) -> None:
    """Three heads of 16 are sound, but its configs want a hidden size that the number of heads divides."""
    subject, kept = build(shape), build(shape)
    apply_switch(subject, read_switch("prune_heads", {"ratio": 0.25}))
    apply_switch(kept, read_switch("prune_heads", {"ratio": 0.5}))
    said = read_back(subject, read_switch("prune_heads", {"ratio": 0.25})).facts["saved_config"]
    assert "hidden size (64) is not a multiple of the number of attention heads (3)" in said
    with pytest.raises(Exception, match=r"not a multiple of the number of attention heads \(3\)"):
        subject.model.save_pretrained(tmp_path)
    assert read_back(kept, read_switch("prune_heads", {"ratio": 0.5})).facts["saved_config"] == "can be loaded again"
