"""Dropped layers: the rest is the model that never had them, caches included."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from backend.recipe.base import RecipeError
from backend.recipe.switches.layers import DropLayers
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.layers import DISTANCES, angular_distance, cosine_distance
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]


def dropped_of(subject: Subject) -> list[int]:
    return [int(index) for index in read_back(subject, DropLayers()).facts["dropped"].split(", ")]


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
def test_equals_a_model_built_without_the_layer(build: Build, logits: Callable[[Subject], Tensor], shape: str) -> None:
    subject, full = build(shape), build(shape)
    apply_switch(subject, DropLayers(count=1))
    kept = [index for index in range(3) if index not in dropped_of(subject)]
    changes: dict[str, object] = {"num_hidden_layers": 2}
    if shape == "gemma":
        changes["layer_types"] = [full.model.config.layer_types[index] for index in kept]
    small = build(shape, **changes)
    state = full.model.state_dict()
    for new, old in enumerate(kept):
        prefix = f"model.layers.{old}."
        moved = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        decoder_layers(small.model)[new].load_state_dict(moved)
    rest = {k: v for k, v in state.items() if ".layers." not in k}
    small.model.load_state_dict(rest, strict=False)
    torch.testing.assert_close(logits(subject), logits(small), atol=1e-5, rtol=1e-5)


def test_sliding_pattern_and_layer_numbers_follow(build: Build, logits: Callable[[Subject], Tensor]) -> None:
    subject = build("gemma")
    influential = decoder_layers(subject.model)
    for name in ("post_attention_layernorm", "post_feedforward_layernorm"):
        getattr(influential[0], name).weight.data.fill_(-0.999)  # Gemma scales by 1 + weight: the first adds nothing
    apply_switch(subject, DropLayers(count=1))
    assert dropped_of(subject) == [0]
    assert subject.model.config.layer_types == ["sliding_attention", "full_attention"]
    assert [layer.self_attn.layer_idx for layer in decoder_layers(subject.model)] == [0, 1]
    cache, ids = DynamicCache(config=subject.model.config), torch.tensor([subject.sample_ids])
    with torch.inference_mode():
        rows = [subject.model(input_ids=ids[:, i : i + 1], cache=cache).logits[0] for i in range(ids.shape[1])]
    torch.testing.assert_close(torch.cat(rows), logits(subject), atol=1e-4, rtol=1e-4)


def test_block_influence_is_one_minus_cosine(tiny_llama: Subject) -> None:
    ids = torch.tensor([tiny_llama.sample_ids])
    with torch.inference_mode():
        states = tiny_llama.model(input_ids=ids, output_hidden_states=True).hidden_states
    expected = 1 - torch.nn.functional.cosine_similarity(states[0], states[1], dim=-1).mean()
    scores = cosine_distance(tiny_llama, decoder_layers(tiny_llama.model))
    assert scores[0].item() == pytest.approx(expected.item(), abs=1e-5)


def test_without_text_only_random_weights_can_do(tiny_llama: Subject) -> None:
    tiny_llama.sample_ids = []
    with pytest.raises(RecipeError, match="some text"):
        apply_switch(tiny_llama, DropLayers())
    tiny_llama.facts = replace(tiny_llama.facts, random_weights=True)
    apply_switch(tiny_llama, DropLayers())
    effect = read_back(tiny_llama, DropLayers())
    assert effect.took_effect
    assert effect.facts["dropped"] == "1"
    assert "random" in effect.facts["chosen_by"]


def test_all_layers_are_refused(tiny_llama: Subject) -> None:
    with pytest.raises(RecipeError, match="1 to 2 layers"):
        apply_switch(tiny_llama, DropLayers(count=3))


def test_nothing_applied_is_seen(any_subject: Subject) -> None:
    assert not read_back(any_subject, DropLayers(count=1)).took_effect


def test_angular_distance_of_a_block_is_the_mean_angle(tiny_llama: Subject) -> None:
    ids = torch.tensor([tiny_llama.sample_ids])
    before, after = [], []
    layers = decoder_layers(tiny_llama.model)
    hooks = [
        layers[0].register_forward_pre_hook(lambda module, args: before.append(args[0])),
        layers[1].register_forward_hook(lambda module, args, output: after.append(output)),
    ]
    with torch.inference_mode():
        tiny_llama.model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    cosines = [F.cosine_similarity(a, b, dim=0) for a, b in zip(before[0][0], after[0][0], strict=True)]
    expected = sum(math.acos(float(one)) / math.pi for one in cosines) / len(cosines)
    scores = angular_distance(tiny_llama, layers, 2)
    assert len(scores) == 2
    assert scores[0].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("by", ["angular", "cosine", "random"])
def test_a_block_is_contiguous_and_the_nearest(build: Build, by: str) -> None:
    subject = build("llama", num_hidden_layers=5)
    switch = DropLayers(count=2, by=by, pattern="block")
    wanted = None if by == "random" else DISTANCES[by](subject, decoder_layers(subject.model), 2).argmin().item()
    apply_switch(subject, switch)
    gone = dropped_of(subject)
    assert gone[1] == gone[0] + 1
    assert wanted is None or gone[0] == wanted
    assert read_back(subject, switch).took_effect


def test_named_layers_go_and_stay(build: Build) -> None:
    subject, switch = build("llama", num_hidden_layers=5), DropLayers(count=1, remove="1 3-4")
    apply_switch(subject, switch)
    effect = read_back(subject, switch)
    assert effect.took_effect
    assert (effect.facts["dropped"], effect.facts["chosen_by"]) == ("1, 3, 4", "hand")
    kept = build("llama", num_hidden_layers=4)
    apply_switch(kept, DropLayers(count=2, remove="0", keep="1 3"))
    assert dropped_of(kept) == [0, 2]
    block = build("llama", num_hidden_layers=5)
    apply_switch(block, DropLayers(count=2, remove="2", keep="1", pattern="block"))
    assert dropped_of(block) == [2, 3]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"remove": "3"}, "there is no layer 3"),
        ({"keep": "0-2"}, "1 to 0 layers"),
        ({"count": 2, "keep": "1", "pattern": "block"}, "there is none"),
        ({"remove": "0-2"}, "1 to 2 layers"),
    ],
)
def test_what_cannot_be_is_refused(tiny_llama: Subject, fields: dict[str, object], said: str) -> None:
    switch = DropLayers.read(fields)
    assert said in (switch.refuse(tiny_llama.facts) or "")
    with pytest.raises(RecipeError, match=said):
        apply_switch(tiny_llama, switch)


def test_ties_go_by_index_and_nothing_is_ranked_by_numbers_that_are_none(build: Build) -> None:
    subject = build("llama")
    for layer in decoder_layers(subject.model):
        layer.self_attn.o_proj.weight.data.fill_(0.0)
        layer.mlp.down_proj.weight.data.fill_(0.0)
    apply_switch(subject, DropLayers(by="random", seed=1))
    alike = build("llama")
    for layer in decoder_layers(alike.model):
        layer.self_attn.o_proj.weight.data.fill_(0.0)
        layer.mlp.down_proj.weight.data.fill_(0.0)
    apply_switch(alike, DropLayers())
    assert dropped_of(alike) == [0]
    assert read_back(alike, DropLayers()).facts["ties"] == "broken by index"
    broken = build("llama")
    decoder_layers(broken.model)[2].mlp.up_proj.weight.data[0] = torch.inf
    with pytest.raises(RecipeError, match=r"layers\.2\.mlp\.up_proj"):
        apply_switch(broken, DropLayers())


def test_a_ratio_stands_in_the_place_of_the_count(build: Build) -> None:
    subject, switch = build("llama", num_hidden_layers=5), DropLayers(ratio=0.4)
    apply_switch(subject, switch)
    assert read_back(subject, switch).took_effect
    assert len(dropped_of(subject)) == 2
    assert switch.label == "40% fewer layers"
    assert "1 to 4 layers" in (DropLayers(ratio=0.95).refuse(replace(subject.facts, layers=5)) or "")
