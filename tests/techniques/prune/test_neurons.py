"""Neuron pruning: really smaller, and equal to the dense model with the same neurons silenced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import PruneNeurons, neurons_kept
from backend.techniques.anatomy import pass_one_token
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.importance import importance
from backend.techniques.prune.neurons import part_of
from backend.techniques.registry import apply_switch, read_back


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
def test_equals_the_model_with_the_neurons_silenced(
    build: Callable[..., Subject], logits: Callable[[Subject], Tensor], shape: str
) -> None:
    pruned, dense = build(shape), build(shape)
    apply_switch(pruned, PruneNeurons(ratio=0.25))
    blocks = [layer.mlp for layer in decoder_layers(dense.model)]
    scores, _ = importance(dense, [part_of(block) for block in blocks], "prune_neurons", "output")
    for block, score in zip(blocks, scores, strict=True):
        mask = torch.ones(128)
        mask[score.topk(32, largest=False).indices] = 0
        block.down_proj.register_forward_pre_hook(lambda module, args, mask=mask: (args[0] * mask,))
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
    score = importance(tiny_gqa, [part_of(decoder_layers(tiny_gqa.model)[0].mlp)], "prune_neurons", "output")[0][0]
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


@pytest.mark.parametrize("by", ["weights", "activation", "taylor", "random"])
def test_every_ranking_takes_effect(build: Callable[..., Subject], by: str) -> None:
    for shape in ("llama", "gemma"):
        subject, switch = build(shape), PruneNeurons(ratio=0.25, by=by)
        apply_switch(subject, switch)
        effect = read_back(subject, switch)
        assert effect.took_effect
        assert effect.facts["real_ratio"] == pytest.approx(0.25)


@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_a_global_ranking_takes_more_where_less_is_lost(
    build: Callable[..., Subject], logits: Callable[[Subject], Tensor], shape: str
) -> None:
    pruned, dense = build(shape), build(shape)
    for subject in (pruned, dense):  # half of the first layer adds next to nothing
        decoder_layers(subject.model)[0].mlp.down_proj.weight.data[:, 64:] *= 1e-5
    switch = PruneNeurons(ratio=1 / 6, scope="global")
    apply_switch(pruned, switch)
    assert pass_one_token(pruned.model).ffn == [64, 128, 128]
    for layer in decoder_layers(dense.model)[:1]:
        layer.mlp.down_proj.weight.data[:, 64:] = 0
    torch.testing.assert_close(logits(pruned), logits(dense), atol=1e-4, rtol=1e-4)
    effect = read_back(pruned, switch)
    assert effect.facts["real_ratio"] == pytest.approx(1 / 6)
    assert effect.facts["neurons_after"] == "64, 128, 128"
    assert "differ by layer" in effect.facts["saved_config"]


def test_what_would_leave_nothing_is_refused(tiny_llama: Subject) -> None:
    for scope in ("layer", "global"):
        with pytest.raises(RecipeError, match="at most"):
            apply_switch(tiny_llama, PruneNeurons(ratio=0.999, scope=scope))
    assert "nothing would go" in (PruneNeurons(ratio=0.0).refuse(tiny_llama.facts) or "")
    assert "at most" in (PruneNeurons(ratio=0.999).refuse(tiny_llama.facts) or "")


def test_a_count_is_kept_to_the_neuron(build: Callable[..., Subject]) -> None:
    for scope, count, wanted in (("layer", 5, [123] * 3), ("global", 7, None)):
        subject, switch = build("gqa"), PruneNeurons(count=count, scope=scope)
        apply_switch(subject, switch)
        found = pass_one_token(subject.model).ffn
        assert found == wanted or sum(found) == 3 * 128 - 7
    with pytest.raises(RecipeError, match="a count below 128"):
        apply_switch(build("llama"), PruneNeurons(count=128))
