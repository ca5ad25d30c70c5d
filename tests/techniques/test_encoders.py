"""What holds for every registered switch on an encoder: the form refuses it with a reason, or it takes effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, PreTrainedModel

from backend.engine.encode import Batch, embed
from backend.engine.encodingreceipt import encoder_receipt, watch
from backend.recipe.calibrated import Calibrated
from backend.recipe.facts import ModelFacts
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Switch, all_switches
from backend.recipe.switches.pruning import PruneHeads, PruneNeurons
from backend.techniques.anatomy import attentions, encoder_layers, pass_one_token
from backend.techniques.base import CalibrationText, Subject
from backend.techniques.prune.heads import part_of
from backend.techniques.prune.importance import importance
from backend.techniques.prune.select import lost_globally, stay
from backend.techniques.registry import apply_switch, read_back

KINDS = sorted(all_switches())


def bert(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(5)
    sizes = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    more = {"num_attention_heads": 4, "max_position_embeddings": 512, "initializer_range": 0.1}
    return BertModel(BertConfig(**{**sizes, **more, **changes}), add_pooling_layer=False).eval().requires_grad_(False)


def subject_of(model: PreTrainedModel) -> Subject:
    facts = ModelFacts(
        name="tiny-encoder",
        architecture=model.config.model_type,
        layers=3,
        hidden=64,
        ffn=128,
        heads=4,
        kv_heads=4,
        head_dim=16,
        vocab=256,
        context=512,
        parameters=sum(p.numel() for p in model.parameters()),
        embedding_parameters=256 * 64,
        task="encoder",
    )
    ids = torch.randint(1, 256, (256,), generator=torch.Generator().manual_seed(7)).tolist()
    text = CalibrationText(ids * 16, "made up")
    return Subject(
        model,
        None,
        facts,
        torch.device("cpu"),
        sample_ids=ids,
        read_text=lambda file, tokens: CalibrationText(text.ids[:tokens], text.source),
    )


@pytest.fixture
def encoder() -> Subject:
    return subject_of(bert())


def batch() -> Batch:
    ids = torch.randint(1, 256, (4, 12), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    return Batch(ids, mask)


def example(kind: str) -> Switch:
    cls, small = all_switches()[kind], {"tokens": 256} if issubclass(all_switches()[kind], Calibrated) else {}
    return cls.read(small)


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("kind", KINDS)
def test_every_switch_is_refused_beforehand_or_takes_effect(kind: str, encoder: Subject) -> None:
    switch = example(kind)
    if kind == "sparse_kernels":
        pytest.skip("without zeros it has nothing to do; see the test with zeros below")
    if reason := switch.unfit(encoder.facts):
        assert len(reason) > 10
        return
    before = embed(encoder, batch())
    apply_switch(encoder, switch)
    encoder.run = watch(encoder, batch())
    receipt = encoder_receipt(encoder, Recipe(switches={kind: switch}))
    [effect] = receipt["effects"]
    assert effect["took_effect"], effect["summary"]
    json.dumps(receipt, allow_nan=False)
    after = embed(encoder, batch())
    assert after.isfinite().all()
    assert torch.allclose(after.norm(dim=1), torch.ones(4), atol=1e-5)
    assert float((before * after).sum(dim=1).min()) > 0.3


@pytest.mark.parametrize(
    "kind", ["static_cache", "window_cache", "draft_model", "prompt_lookup", "kv_heads", "compile"]
)
def test_what_only_a_decoder_has_is_refused_with_its_reason(kind: str, encoder: Subject) -> None:
    reason = all_switches()[kind]().unfit(encoder.facts)
    assert reason is not None
    assert reason.startswith("a decoder")


@pytest.mark.parametrize("kind", ["int8_dynamic", "int8_weight_only", "int4_weight_only", "cast"])
def test_precision_and_fewer_heads_go_together(kind: str, encoder: Subject) -> None:
    recipe = Recipe.read({"switches": {kind: {}, "prune_heads": {"ratio": 0.5}}})
    recipe.check(encoder.facts)
    for switch in recipe.pipeline:
        apply_switch(encoder, switch)
    receipt = encoder_receipt(encoder, recipe)
    assert [effect["took_effect"] for effect in receipt["effects"]] == [True, True]
    assert receipt["heads"] == 2
    assert embed(encoder, batch()).isfinite().all()


@pytest.mark.parametrize(("pattern", "sparse"), [("none", "csr"), ("64x1", "blocks")])
def test_zeros_and_sparse_kernels_go_together(pattern: str, sparse: str, encoder: Subject) -> None:
    recipe = Recipe.read({"switches": {"wanda": {"pattern": pattern}, "sparse_kernels": {"gain": 0.0}}})
    recipe.check(encoder.facts)
    zeros, kernels = recipe.pipeline
    apply_switch(encoder, zeros)
    before = embed(encoder, batch())
    apply_switch(encoder, kernels)
    receipt = encoder_receipt(encoder, recipe)
    assert [effect["took_effect"] for effect in receipt["effects"]] == [True, True]
    assert sparse in {family["format"] for family in receipt["families"]}
    assert torch.allclose(embed(encoder, batch()), before, atol=1e-5)


def attention_output(model: PreTrainedModel, ids: Tensor) -> list[Tensor]:
    """What enters each layer's output projection (1, T, heads * size)."""
    seen: list[Tensor] = []
    hooks = [
        layer.attention.output.dense.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        for layer in encoder_layers(model)
    ]
    with torch.inference_mode():
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return seen


def test_heads_that_stay_compute_what_they_did_and_those_that_add_least_go(encoder: Subject) -> None:
    ids = torch.tensor([encoder.sample_ids[:20]])
    before = attention_output(encoder.model, ids)[0]
    with torch.no_grad():  # head 2 of the first layer adds nothing
        encoder_layers(encoder.model)[0].attention.output.dense.weight[:, 32:48] = 0
    apply_switch(encoder, PruneHeads(ratio=0.25))
    after = attention_output(encoder.model, ids)[0]
    kept = torch.cat([before[..., :32], before[..., 48:]], dim=-1)
    assert torch.allclose(after, kept, atol=1e-5)
    assert pass_one_token(encoder.model).attention == [48, 48, 48]
    effect = read_back(encoder, PruneHeads(ratio=0.25))
    assert effect.summary == "3 of 4 heads a layer"
    assert "cannot" in effect.facts["saved_config"] or "refuses" in effect.facts["saved_config"]


def test_a_pruned_head_is_the_same_as_one_that_adds_nothing(encoder: Subject) -> None:
    whole = subject_of(bert())
    for subject in (encoder, whole):
        with torch.no_grad():
            for layer in encoder_layers(subject.model):
                layer.attention.output.dense.weight[:, :16] = 0
    apply_switch(encoder, PruneHeads(ratio=0.25))
    assert torch.allclose(embed(encoder, batch()), embed(whole, batch()), atol=1e-5)


def test_neurons_that_add_nothing_go_first_and_change_nothing(encoder: Subject) -> None:
    whole = subject_of(bert())
    for subject in (encoder, whole):
        with torch.no_grad():
            for layer in encoder_layers(subject.model):
                layer.output.dense.weight[:, :32] = 0
    apply_switch(encoder, PruneNeurons(ratio=0.25))
    assert pass_one_token(encoder.model).ffn == [96, 96, 96]
    assert torch.allclose(embed(encoder, batch()), embed(whole, batch()), atol=1e-5)
    assert read_back(encoder, PruneNeurons(ratio=0.25)).took_effect


def test_another_build_refuses_pruned_heads_and_takes_precision() -> None:
    torch.manual_seed(5)
    config = DistilBertConfig(
        vocab_size=256, dim=64, hidden_dim=128, n_layers=3, n_heads=4, max_position_embeddings=512
    )
    subject = subject_of(DistilBertModel(config).eval().requires_grad_(False))
    assert "BERT" in PruneHeads().unfit(subject.facts)
    assert "BERT" in PruneNeurons().unfit(subject.facts)
    recipe = Recipe.read({"switches": {"int8_dynamic": {}}})
    for switch in recipe.pipeline:
        apply_switch(subject, switch)
    receipt = encoder_receipt(subject, recipe)
    assert receipt["effects"][0]["took_effect"]
    assert receipt["heads"] == 4
    assert embed(subject, batch()).isfinite().all()


def test_decoders_are_asked_as_before(build: Callable[..., Subject]) -> None:
    facts = build("llama").facts
    for kind in KINDS:
        switch = all_switches()[kind]()
        needs_experts = "experts" in (switch.foreign(facts) or "")
        assert needs_experts or switch.unfit(facts) == switch.refuse(facts)


@pytest.mark.parametrize("by", ["output", "weights", "activation", "taylor", "entropy", "ablation", "random"])
def test_every_ranking_of_heads_gives_the_masked_encoder(by: str) -> None:
    pruned, dense, switch = subject_of(bert()), subject_of(bert()), PruneHeads(ratio=0.5, by=by, scope="global")
    parts = [part_of(block) for block in attentions(dense.model, "prune_heads")]
    scores, _ = importance(dense, parts, "prune_heads", by)
    for part, score, lost in zip(parts, scores, lost_globally(scores, 6), strict=True):
        mask = torch.zeros(4)
        mask[stay(score, lost)] = 1
        whole = mask.repeat_interleave(16)
        part.entered.register_forward_pre_hook(lambda module, args, whole=whole: (args[0] * whole,))
    apply_switch(pruned, switch)
    assert torch.allclose(embed(pruned, batch()), embed(dense, batch()), atol=1e-4)
    assert sum(pass_one_token(pruned.model).attention) == 6 * 16
    assert read_back(pruned, switch).took_effect


@pytest.mark.parametrize("by", ["weights", "activation", "taylor", "random"])
def test_every_ranking_of_neurons_takes_effect_on_an_encoder(by: str, encoder: Subject) -> None:
    switch = PruneNeurons(ratio=0.25, by=by, scope="global")
    apply_switch(encoder, switch)
    assert sum(pass_one_token(encoder.model).ffn) == 288
    assert embed(encoder, batch()).isfinite().all()


def test_the_taylor_score_of_an_encoder_is_how_far_its_vector_moves(encoder: Subject) -> None:
    """Against the difference along the same direction with one head turned down a little."""
    parts = [part_of(block) for block in attentions(encoder.model, "prune_heads")]
    encoder.sample_ids = encoder.sample_ids[:64]
    scores = importance(encoder, parts, "prune_heads", "taylor")[0]
    direction = torch.randn(64, generator=torch.Generator().manual_seed(0))

    def along(scale: float) -> float:
        mask = torch.ones(64)
        mask[16:32] = scale
        hook = parts[0].entered.register_forward_pre_hook(lambda module, args: (args[0] * mask,))
        ids = torch.tensor([encoder.sample_ids])
        found = float(embed(encoder, Batch(ids, torch.ones_like(ids)))[0] @ direction)
        hook.remove()
        return found

    assert float(scores[0][1]) == pytest.approx(abs(along(1.01) - along(0.99)) / 0.02, rel=0.02)
