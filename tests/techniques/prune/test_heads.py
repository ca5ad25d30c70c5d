"""Head pruning: really smaller, and equal to the dense model with the same heads silenced."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, StaticCache

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import PruneHeads
from backend.techniques.anatomy import pass_one_token
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.heads import part_of
from backend.techniques.prune.importance import importance
from backend.techniques.prune.select import lost_globally, marked, stay
from backend.techniques.registry import apply_switch, read_back

Logits = Callable[[Subject], Tensor]
Build = Callable[..., Subject]


def silence(subject: Subject, switch: PruneHeads) -> None:
    """Let nothing of the least important units enter o in a dense model."""
    blocks = [layer.self_attn for layer in decoder_layers(subject.model)]
    parts = [part_of(block) for block in blocks]
    scores, _ = importance(subject, parts, "prune_heads", switch.by, switch.seed)
    scores = marked(scores, switch.removed, switch.kept)
    units = [part.units for part in parts]
    lost = switch.lost(units) if switch.scope == "layer" else lost_globally(scores, switch.lost_of_all(units))
    for part, score, count in zip(parts, scores, lost, strict=True):
        mask = torch.zeros(part.units)
        mask[stay(score, count)] = 1
        mask_inputs(part.entered, mask.repeat_interleave(part.entered.in_features // part.units))


def mask_inputs(linear: nn.Linear, mask: Tensor) -> None:
    linear.register_forward_pre_hook(lambda module, args: (args[0] * mask,))


@pytest.mark.parametrize(("shape", "ratio"), [("llama", 0.25), ("gqa", 0.5), ("gemma", 0.5)])
def test_equals_the_model_with_the_heads_silenced(build: Build, logits: Logits, shape: str, ratio: float) -> None:
    pruned, dense = build(shape), build(shape)
    apply_switch(pruned, PruneHeads(ratio=ratio))
    silence(dense, PruneHeads(ratio=ratio))
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
    silence(dense, PruneHeads(ratio=0.5))
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


@pytest.mark.parametrize("by", ["weights", "activation", "taylor", "entropy", "ablation", "random"])
@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
def test_every_ranking_gives_the_masked_model(build: Build, logits: Logits, shape: str, by: str) -> None:
    pruned, dense, switch = build(shape), build(shape), PruneHeads(ratio=0.5, by=by, seed=3)
    apply_switch(pruned, switch)
    silence(dense, switch)
    torch.testing.assert_close(logits(pruned), logits(dense), atol=1e-4, rtol=1e-4)
    assert read_back(pruned, switch).took_effect


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
def test_a_global_ranking_leaves_uneven_layers_that_still_decode_in_a_cache(
    build: Build, logits: Logits, shape: str
) -> None:
    pruned, dense = build(shape), build(shape)
    for subject in (pruned, dense):  # each unit of the first layer but the first adds next to nothing
        decoder_layers(subject.model)[0].self_attn.o_proj.weight.data[:, 32 if shape == "gqa" else 16 :] *= 1e-4
    switch = PruneHeads(ratio=0.25 if shape != "gqa" else 0.4, scope="global")
    apply_switch(pruned, switch)
    silence(dense, switch)
    torch.testing.assert_close(logits(pruned), logits(dense), atol=1e-4, rtol=1e-4)
    effect = read_back(pruned, switch)
    assert effect.took_effect
    assert effect.facts["heads_after"].startswith("2, " if shape == "gqa" else "1, ")
    assert "differ by layer" in effect.facts["saved_config"]
    assert_decodes_as_it_reads(pruned, logits)


def assert_decodes_as_it_reads(subject: Subject, logits: Logits) -> None:
    for cache in (
        DynamicCache(config=subject.model.config),
        StaticCache(config=subject.model.config, max_cache_len=64),
    ):
        ids = torch.tensor([subject.sample_ids])
        with torch.inference_mode():
            rows = [subject.model(input_ids=ids[:, i : i + 1], cache=cache).logits[0] for i in range(ids.shape[1])]
        torch.testing.assert_close(torch.cat(rows), logits(subject), atol=1e-4, rtol=1e-4)


def test_parameters_go_down_globally_as_asked(build: Build) -> None:
    subject = build("llama")

    def count() -> int:
        return sum(p.numel() for layer in decoder_layers(subject.model) for p in layer.self_attn.parameters())

    before = count()
    apply_switch(subject, PruneHeads(ratio=0.5, scope="global", by="random"))
    assert count() / before == pytest.approx(0.5, abs=0.01)


def test_named_heads_go_and_others_stay(build: Build, logits: Logits) -> None:
    switch = PruneHeads(ratio=0.0, remove="0:1,3 2:0", keep="1:0")
    pruned, dense = build("llama"), build("llama")
    wanted = decoder_layers(dense.model)[0].self_attn.q_proj.weight.data.view(4, 16, 64)[[0, 2]].reshape(32, 64)
    apply_switch(pruned, switch)
    torch.testing.assert_close(decoder_layers(pruned.model)[0].self_attn.q_proj.weight.data, wanted)
    assert pass_one_token(pruned.model).attention == [32, 64, 48]
    silence(dense, switch)
    torch.testing.assert_close(logits(pruned), logits(dense), atol=1e-4, rtol=1e-4)
    assert read_back(pruned, switch).facts["heads_after"] == "2, 4, 3"


def test_a_kept_head_stays_though_it_adds_nothing(tiny_llama: Subject) -> None:
    block = decoder_layers(tiny_llama.model)[0].self_attn
    block.o_proj.weight.data[:, 16:32] = 0
    expected = block.q_proj.weight.data[16:32].clone()
    apply_switch(tiny_llama, PruneHeads(ratio=0.75, keep="0:1"))
    torch.testing.assert_close(block.q_proj.weight.data, expected)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"remove": "3:0"}, "there is no layer 3"),
        ({"remove": "0:4"}, "there is no head 0:4"),
        ({"keep": "0:7"}, "there is no head 0:7"),
        ({"remove": "1:0-3"}, "all 4 of layer 1"),
        ({"ratio": 0.0}, "nothing would go"),
        ({"ratio": 0.75, "keep": "2:0,1"}, "at most 2 heads of layer 2"),
        ({"ratio": 0.9, "scope": "global"}, "at most 9 of 12 heads"),
    ],
)
def test_what_cannot_be_is_refused_before_and_when_applied(
    tiny_llama: Subject, fields: dict[str, object], said: str
) -> None:
    switch = PruneHeads.read(fields)
    assert said in (switch.refuse(tiny_llama.facts) or "")
    with pytest.raises(RecipeError, match=said):
        apply_switch(tiny_llama, switch)


def test_a_count_stands_in_the_place_of_the_ratio(build: Build) -> None:
    for fields, widths in (({}, [48, 48, 48]), ({"scope": "global", "by": "random"}, None)):
        subject, switch = build("llama"), PruneHeads.read({"count": 1 if widths else 5, **fields})
        apply_switch(subject, switch)
        found = pass_one_token(subject.model).attention
        assert found == widths or sum(found) == (12 - 5) * 16
        assert read_back(subject, switch).took_effect
    assert "a count of at most 3" in (PruneHeads(count=4).refuse(build("llama").facts) or "")
    assert PruneHeads(count=2).label == "2 heads fewer a layer"


@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_one_at_a_time_is_as_if_one_were_removed_again_and_again(build: Build, logits: Logits, shape: str) -> None:
    whole, often = build(shape), build(shape)
    apply_switch(whole, PruneHeads(ratio=0, count=3, scope="global", at_a_time=1))
    for _ in range(3):
        apply_switch(often, PruneHeads(ratio=0, count=1, scope="global"))
    torch.testing.assert_close(logits(whole), logits(often))
    facts = read_back(whole, PruneHeads(ratio=0, count=3, scope="global", at_a_time=1)).facts
    assert "ranked again after every 1" in facts["chosen_by"]


def test_all_at_once_is_a_step_as_large_as_all(build: Build, logits: Logits) -> None:
    once, stepped = build("llama"), build("llama")
    apply_switch(once, PruneHeads(ratio=0.5))
    apply_switch(stepped, PruneHeads(ratio=0.5, at_a_time=2))
    torch.testing.assert_close(logits(once), logits(stepped))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_named_heads_go_and_stay_whatever_is_ranked_again(build: Build, scope: str) -> None:
    subject = build("llama")
    switch = PruneHeads(ratio=0.5, scope=scope, remove="0:1,2", keep="1:0,3", at_a_time=1)
    apply_switch(subject, switch)
    kept = subject.notes["prune_heads"]["kept"]
    assert not {1, 2} & set(kept[0])
    assert {0, 3} <= set(kept[1])
    assert sum(map(len, kept)) == 6


def test_a_layer_that_is_down_to_one_group_loses_no_more(build: Build, logits: Logits) -> None:
    subject = build("gqa")  # two KV heads in each of three layers
    apply_switch(subject, PruneHeads(ratio=0, count=3, scope="global", at_a_time=1))
    assert [len(own) for own in subject.notes["prune_heads"]["kept"]] == [1, 1, 1]
    assert logits(subject).isfinite().all()
