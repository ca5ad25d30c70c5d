"""Neuron pruning: really smaller, and equal to the dense model with the same neurons silenced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import PruneNeurons
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.neurons import importance, neurons_kept
from backend.techniques.registry import apply_switch, read_back


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
def test_equals_the_model_with_the_neurons_silenced(
    build: Callable[..., Subject], logits: Callable[[Subject], Tensor], shape: str
) -> None:
    pruned, dense = build(shape), build(shape)
    apply_switch(pruned, PruneNeurons(ratio=0.25))
    blocks = [layer.mlp for layer in decoder_layers(dense.model)]
    for block, score in zip(blocks, importance(dense, blocks), strict=True):
        gone = score.topk(32, largest=False).indices
        block.down_proj.weight.data[:, gone] = 0
    torch.testing.assert_close(logits(pruned), logits(dense), atol=1e-4, rtol=1e-4)
    assert pruned.model.config.intermediate_size == 96


def test_the_weakest_neurons_go(tiny_llama: Subject) -> None:
    mlp = decoder_layers(tiny_llama.model)[1].mlp
    mlp.up_proj.weight.data[5:37] *= 1e-3
    stays = torch.tensor([i for i in range(128) if not 5 <= i < 37])
    expected = mlp.gate_proj.weight.data[stays].clone()
    apply_switch(tiny_llama, PruneNeurons(ratio=0.25))
    torch.testing.assert_close(mlp.gate_proj.weight.data, expected)


def test_importance_is_what_a_neuron_adds(tiny_gqa: Subject) -> None:
    down = decoder_layers(tiny_gqa.model)[0].mlp.down_proj
    entering: list[Tensor] = []
    hook = down.register_forward_pre_hook(lambda module, args: entering.append(args[0][0].detach()))
    score = importance(tiny_gqa, [decoder_layers(tiny_gqa.model)[0].mlp])[0]
    hook.remove()
    added = entering[0][:, 9:10] @ down.weight.detach()[:, 9:10].T  # (T, hidden), of neuron 9 alone
    torch.testing.assert_close(score[9], added.norm())


def test_without_text_weights_decide_and_the_receipt_says_so(tiny_llama: Subject) -> None:
    tiny_llama.sample_ids = []
    apply_switch(tiny_llama, PruneNeurons())
    effect = read_back(tiny_llama, PruneNeurons())
    assert effect.took_effect
    assert "no text" in effect.facts["chosen_by"]


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.3, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("ffn", [128, 1376, 2048, 4864])
def test_the_real_ratio_is_within_one_percent(ffn: int, ratio: float) -> None:
    assert 1 - neurons_kept(ffn, ratio) / ffn == pytest.approx(ratio, abs=0.01)


def test_large_models_keep_whole_blocks_of_32() -> None:
    assert neurons_kept(2048, 0.3) % 32 == 0
    assert neurons_kept(1376, 0.25) % 32 == 0


def test_receipt_measures_widths(tiny_gemma: Subject) -> None:
    assert not read_back(tiny_gemma, PruneNeurons(ratio=0.5)).took_effect
    apply_switch(tiny_gemma, PruneNeurons(ratio=0.5))
    effect = read_back(tiny_gemma, PruneNeurons(ratio=0.5))
    assert effect.took_effect
    assert (effect.facts["neurons_before"], effect.facts["neurons_after"]) == (128, 64)
    assert effect.facts["multiple_of"] == 32


def test_an_unknown_build_is_refused(tiny_llama: Subject) -> None:
    tiny_llama.model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=64))
    with pytest.raises(RecipeError, match="Llama, Mistral"):
        apply_switch(tiny_llama, PruneNeurons())
