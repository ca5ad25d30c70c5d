"""Pooled key-value heads: the mean of each group, and a cache that really shrinks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import KVHeads
from backend.techniques.attention.kv_heads import put_in_order
from backend.techniques.attention.likeness import group_alike
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]


@pytest.mark.parametrize(("count", "groups"), [(2, [(0, 1), (2, 3)]), (1, [(0, 1, 2, 3)])])
@pytest.mark.parametrize("name", ["k_proj", "v_proj"])
def test_each_head_is_the_mean_of_its_group(build: Build, name: str, count: int, groups: list[tuple[int, ...]]) -> None:
    subject = build("llama", attention_bias=True)
    linear = getattr(decoder_layers(subject.model)[1].self_attn, name)
    torch.nn.init.normal_(linear.bias)
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    apply_switch(subject, KVHeads(count=count))
    for new, members in enumerate(groups):
        rows = slice(16 * new, 16 * new + 16)
        mean = sum(weight[16 * h : 16 * h + 16] for h in members) / len(members)
        mean_bias = sum(bias[16 * h : 16 * h + 16] for h in members) / len(members)
        torch.testing.assert_close(linear.weight.detach()[rows], mean)
        torch.testing.assert_close(linear.bias.detach()[rows], mean_bias)
    assert linear.out_features == 16 * count


@pytest.mark.parametrize(("shape", "count"), [("llama", 2), ("llama", 1), ("gqa", 1)])
def test_equals_the_full_model_with_every_head_set_to_its_groups_mean(
    build: Build, logits: Callable[[Subject], Tensor], shape: str, count: int
) -> None:
    pooled, full = build(shape), build(shape)
    apply_switch(pooled, KVHeads(count=count))
    heads = full.model.config.num_key_value_heads
    for layer in decoder_layers(full.model):
        for linear in (layer.self_attn.k_proj, layer.self_attn.v_proj):
            grouped = linear.weight.data.view(count, heads // count, 16, 64)
            linear.weight.data = grouped.mean(1, keepdim=True).expand_as(grouped).reshape(heads * 16, 64).clone()
    torch.testing.assert_close(logits(pooled), logits(full), atol=1e-4, rtol=1e-4)


def test_bytes_a_token_fall_with_the_heads(tiny_llama: Subject) -> None:
    assert not read_back(tiny_llama, KVHeads(count=1)).took_effect
    apply_switch(tiny_llama, KVHeads(count=1))
    facts = read_back(tiny_llama, KVHeads(count=1)).facts
    assert facts["kv_bytes_per_token_before"] == 2 * 3 * 4 * 16 * 4
    assert facts["kv_bytes_per_token_after"] == 2 * 3 * 1 * 16 * 4
    assert tiny_llama.model.config.num_key_value_heads == 1


def test_bytes_are_those_of_the_live_type(tiny_llama: Subject) -> None:
    apply_switch(tiny_llama, KVHeads(count=2))
    tiny_llama.model.to(torch.bfloat16)
    facts = read_back(tiny_llama, KVHeads(count=2)).facts
    assert facts["kv_bytes_per_token_after"] == 2 * 3 * 2 * 16 * 2


@pytest.mark.parametrize(("shape", "count"), [("gemma", 1), ("llama", 3), ("llama", 4)])
def test_what_cannot_be_pooled_is_refused(build: Build, shape: str, count: int) -> None:
    with pytest.raises(RecipeError, match="count"):
        apply_switch(build(shape), KVHeads(count=count))


def test_an_unknown_build_is_refused(tiny_llama: Subject) -> None:
    tiny_llama.model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=64))
    with pytest.raises(RecipeError, match="Llama, Mistral"):
        apply_switch(tiny_llama, KVHeads())


def test_first_heads_are_kept_as_they_are(build: Build) -> None:
    subject = build("llama")
    linear = decoder_layers(subject.model)[0].self_attn.k_proj
    weight = linear.weight.detach().clone()
    apply_switch(subject, KVHeads(count=2, grouping="first"))
    assert torch.equal(linear.weight.detach(), torch.cat([weight[:16], weight[32:48]]))
    assert read_back(subject, KVHeads(count=2, grouping="first")).took_effect


@pytest.mark.parametrize("shape", ["llama", "gqa"])
def test_order_of_heads_changes_nothing(build: Build, logits: Callable[[Subject], Tensor], shape: str) -> None:
    subject = build(shape)
    before = logits(subject)
    for layer in decoder_layers(subject.model):
        put_in_order(layer.self_attn, [2, 0, 3, 1] if shape == "llama" else [1, 0], "kv_heads")
    torch.testing.assert_close(logits(subject), before, atol=1e-5, rtol=1e-5)


def test_like_heads_are_found_and_pooled_without_loss(build: Build, logits: Callable[[Subject], Tensor]) -> None:
    subject = build("llama")
    for layer in decoder_layers(subject.model):
        for linear in (layer.self_attn.k_proj, layer.self_attn.v_proj):  # heads 0 and 2, and 1 and 3, are the same
            linear.weight.data[32:] = linear.weight.data[:32]
    before = logits(subject)
    apply_switch(subject, KVHeads(count=2, grouping="activation"))
    torch.testing.assert_close(logits(subject), before, atol=1e-4, rtol=1e-4)
    effect = read_back(subject, KVHeads(count=2, grouping="activation"))
    assert effect.took_effect
    assert effect.facts["regrouped_layers"] == 3


@pytest.mark.parametrize(("heads", "count"), [(6, 2), (6, 3), (8, 4)])
def test_groups_are_whole_and_never_worse_than_neighbours(heads: int, count: int) -> None:
    for seed in range(5):
        states = torch.randn(heads, 10, generator=torch.Generator().manual_seed(seed))
        alike = states @ states.T
        order = group_alike(alike, count)
        assert sorted(order) == list(range(heads))
        assert within(alike, order, count) >= within(alike, list(range(heads)), count) - 1e-5
        a, b = order[0], order[-1]
        swapped = [b, *order[1:-1], a]
        assert within(alike, order, count) >= within(alike, swapped, count) - 1e-4


def within(alike: Tensor, order: list[int], count: int) -> float:
    """Likeness within groups of neighbours, the heads' own left out."""
    size = len(order) // count
    groups = [order[at : at + size] for at in range(0, len(order), size)]
    return sum(float(alike[a, b]) for group in groups for a in group for b in group if a != b)


def test_one_group_needs_no_text(build: Build) -> None:
    mean, alike = build("llama"), build("llama")
    alike.read_text = None
    apply_switch(mean, KVHeads(count=1))
    apply_switch(alike, KVHeads(count=1, grouping="activation"))
    weights = (decoder_layers(s.model)[0].self_attn.v_proj.weight for s in (mean, alike))
    assert torch.equal(*weights)
    assert KVHeads(count=1, grouping="activation").label == "MQA, like with like"
