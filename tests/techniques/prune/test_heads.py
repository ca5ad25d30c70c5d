"""Head pruning: really smaller, and equal to the dense model with the same heads silenced."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import PruneHeads
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.heads import importance
from backend.techniques.registry import apply_switch, read_back

Logits = Callable[[Subject], Tensor]
Build = Callable[..., Subject]


def silence(subject: Subject, kept: int, units: int) -> None:
    """Zero the o columns of the least important units of a dense model."""
    blocks = [layer.self_attn for layer in decoder_layers(subject.model)]
    for block, score in zip(blocks, importance(subject, blocks, units), strict=True):
        size = block.o_proj.in_features // units
        for unit in score.topk(units - kept, largest=False).indices.tolist():
            block.o_proj.weight.data[:, unit * size : (unit + 1) * size] = 0


@pytest.mark.parametrize(
    ("shape", "ratio", "units", "kept"), [("llama", 0.25, 4, 3), ("gqa", 0.5, 2, 1), ("gemma", 0.5, 4, 2)]
)
def test_equals_the_model_with_the_heads_silenced(
    build: Build, logits: Logits, shape: str, ratio: float, units: int, kept: int
) -> None:
    pruned, dense = build(shape), build(shape)
    apply_switch(pruned, PruneHeads(ratio=ratio))
    silence(dense, kept, units)
    torch.testing.assert_close(logits(pruned), logits(dense), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("shape", "ratio"), [("llama", 0.5), ("gqa", 0.5), ("gemma", 0.25)])
def test_attention_parameters_fall_as_asked(build: Build, shape: str, ratio: float) -> None:
    def count(subject: Subject) -> int:
        layers = decoder_layers(subject.model)
        cut = ("q_proj", "o_proj") if shape == "gemma" else ("q_proj", "k_proj", "v_proj", "o_proj")
        return sum(p.numel() for layer in layers for name in cut for p in getattr(layer.self_attn, name).parameters())

    subject = build(shape)
    before = count(subject)
    apply_switch(subject, PruneHeads(ratio=ratio))
    assert count(subject) / before == pytest.approx(1 - ratio, abs=0.01)


def test_biases_go_with_their_heads(build: Build, logits: Logits) -> None:
    pruned, dense = build("llama", attention_bias=True), build("llama", attention_bias=True)
    for subject in (pruned, dense):
        for layer in decoder_layers(subject.model):
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                torch.nn.init.normal_(getattr(layer.self_attn, name).bias, generator=torch.Generator().manual_seed(3))
    apply_switch(pruned, PruneHeads(ratio=0.5))
    silence(dense, 2, 4)
    torch.testing.assert_close(logits(pruned), logits(dense), atol=1e-4, rtol=1e-4)


def test_config_stays_true_and_the_cache_shrinks(tiny_llama: Subject) -> None:
    apply_switch(tiny_llama, PruneHeads(ratio=0.5))
    config, block = tiny_llama.model.config, decoder_layers(tiny_llama.model)[0].self_attn
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 2, 16)
    assert block.num_key_value_groups == 1
    effect = read_back(tiny_llama, PruneHeads(ratio=0.5))
    assert effect.took_effect
    assert effect.facts["kv_heads_after"] == 2
    assert effect.facts["real_ratio"] == 0.5


def test_all_heads_pruned_is_refused(tiny_llama: Subject) -> None:
    before = deepcopy(tiny_llama.model.config.num_attention_heads)
    with pytest.raises(RecipeError, match=r"at most 0\.75"):
        apply_switch(tiny_llama, PruneHeads(ratio=0.95))
    assert tiny_llama.model.config.num_attention_heads == before


def test_nothing_applied_is_seen(any_subject: Subject) -> None:
    assert not read_back(any_subject, PruneHeads(ratio=0.5)).took_effect


def test_an_unknown_build_is_refused(tiny_llama: Subject) -> None:
    tiny_llama.model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=64))
    with pytest.raises(RecipeError, match="GPT2LMHeadModel"):
        apply_switch(tiny_llama, PruneHeads())


def test_the_head_that_adds_nothing_goes(tiny_gemma: Subject) -> None:
    blocks = [layer.self_attn for layer in decoder_layers(tiny_gemma.model)]
    for block in blocks:
        block.o_proj.weight.data[:, 16:32] *= 1e-3  # the second of four heads
    expected = blocks[0].q_proj.weight.data.view(4, 16, 64)[[0, 2, 3]].reshape(48, 64)
    apply_switch(tiny_gemma, PruneHeads(ratio=0.25))
    torch.testing.assert_close(blocks[0].q_proj.weight.data, expected)


def test_without_text_weights_decide_and_the_receipt_says_so(tiny_llama: Subject) -> None:
    tiny_llama.sample_ids = []
    apply_switch(tiny_llama, PruneHeads(ratio=0.5))
    assert "no text" in read_back(tiny_llama, PruneHeads(ratio=0.5)).facts["chosen_by"]
