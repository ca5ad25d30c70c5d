"""Switches of experts: each against a model that is known to be equal, or a case that can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switches.experts import (
    ExpertCapacity,
    ExpertTopK,
    MergeExperts,
    PruneExperts,
    QuantizeExperts,
    SplitExperts,
)
from backend.techniques.base import Subject
from backend.techniques.experts.routed import routed_parts, usage
from backend.techniques.experts.split import clusters, fit
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]


@torch.inference_mode()
def logits(subject: Subject, tokens: int = 12) -> Tensor:
    return subject.model(input_ids=torch.tensor([subject.sample_ids[:tokens]])).logits


def parts_of(subject: Subject) -> list[Any]:
    return routed_parts(subject, "test")


def test_top_k_is_what_the_config_would_have_made(tiny_moe: Subject, build: Build) -> None:
    apply_switch(tiny_moe, ExpertTopK(count=1))
    wanted = logits(build("moe", num_experts_per_tok=1))
    torch.testing.assert_close(logits(tiny_moe), wanted)
    effect = read_back(tiny_moe, ExpertTopK(count=1))
    assert effect.took_effect
    assert effect.summary == "1 of 4 experts a token, 2 before"


def test_the_k_that_is_there_already_is_no_effect(tiny_moe: Subject) -> None:
    apply_switch(tiny_moe, ExpertTopK(count=2))
    assert not read_back(tiny_moe, ExpertTopK(count=2)).took_effect


def test_removed_experts_are_those_that_could_not_be_chosen(tiny_moe: Subject, build: Build) -> None:
    """Odds of minus infinity for the same experts give the same model."""
    counts = usage(tiny_moe, parts_of(tiny_moe))
    masked = build("moe")
    for part, count in zip(parts_of(masked), counts, strict=True):
        least = count.argsort(descending=True, stable=True)[2:]
        real = part.gate.forward

        def without(hidden: Tensor, gate: Any = part.gate, least: Tensor = least) -> Any:
            odds = nn.functional.linear(hidden, gate.weight)
            odds[:, least] = float("-inf")
            values, chosen = odds.softmax(-1).topk(gate.top_k)
            return odds, values / values.sum(-1, keepdim=True), chosen

        assert real is not None
        part.gate.forward = without
    apply_switch(tiny_moe, PruneExperts(count=2))
    torch.testing.assert_close(logits(tiny_moe), logits(masked))
    effect = read_back(tiny_moe, PruneExperts(count=2))
    assert effect.took_effect
    assert effect.facts["experts_after"] == 2
    assert tiny_moe.model.config.num_local_experts == 2


def test_equal_importance_keeps_the_first_and_says_so(tiny_moe: Subject) -> None:
    for part in parts_of(tiny_moe):
        for expert in part.experts:
            expert.load_state_dict(part.experts[0].state_dict())
    switch = PruneExperts(count=1, by="weights")
    apply_switch(tiny_moe, switch)
    effect = read_back(tiny_moe, switch)
    assert effect.facts["removed"] == "0: 3; 1: 3; 2: 3"
    assert "all were equal" in effect.summary


def test_chance_is_another_with_another_seed(build: Build) -> None:
    def removed(seed: int) -> Any:
        subject, switch = build("moe"), PruneExperts(count=2, by="random", seed=seed)
        apply_switch(subject, switch)
        return read_back(subject, switch).facts["removed"]

    assert removed(1) == removed(1)
    assert len({removed(seed) for seed in range(4)}) > 1


def test_one_dense_part_of_all_is_the_mean_of_the_experts(tiny_moe: Subject) -> None:
    hidden = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = torch.stack([expert(hidden) for expert in parts_of(tiny_moe)[0].experts]).mean(0)
        apply_switch(tiny_moe, MergeExperts(count=4))
        torch.testing.assert_close(tiny_moe.model.model.layers[0].mlp(hidden), wanted, atol=1e-5, rtol=1e-5)
    effect = read_back(tiny_moe, MergeExperts(count=4))
    assert effect.took_effect
    assert effect.facts == {"experts_joined": 4, "neurons": 256, "needs_training": True}


@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_a_dense_part_cut_in_experts_is_itself_when_all_are_used(shape: str, build: Build) -> None:
    subject = build(shape)
    before = logits(subject)
    switch = SplitExperts(experts=4, top_k=4)
    apply_switch(subject, switch)
    torch.testing.assert_close(logits(subject), before, atol=1e-4, rtol=1e-4)
    assert read_back(subject, switch).took_effect


def test_the_fitted_router_beats_chance(tiny_llama: Subject, build: Build) -> None:
    """The two of four experts that it chooses come nearer to the dense part than the two that it does not."""
    before = logits(tiny_llama)
    apply_switch(tiny_llama, SplitExperts(experts=4, top_k=2))
    near = (logits(tiny_llama) - before).norm()
    for part in parts_of(tiny_llama):
        part.gate.weight.data.neg_()
        part.gate.offset.data.neg_()
    assert near < (logits(tiny_llama) - before).norm()


def test_clusters_are_of_one_size_and_find_what_is_alike() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
    assert sorted(sorted(group.tolist()) for group in clusters(rows, 2)) == [[0, 2], [1, 3]]


def test_the_ridge_finds_a_line() -> None:
    inputs = torch.randn(200, 3, generator=torch.Generator().manual_seed(2))
    weight, offset = fit(inputs, inputs @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3.0)
    torch.testing.assert_close(weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.05, rtol=0.05)
    torch.testing.assert_close(offset, torch.tensor([3.0]), atol=0.05, rtol=0.05)


def test_capacity_drops_of_a_prompt_and_not_of_a_step(tiny_moe: Subject) -> None:
    before, step = logits(tiny_moe), logits(tiny_moe, tokens=1)
    switch = ExpertCapacity(factor=0.5)
    apply_switch(tiny_moe, switch)
    assert not torch.allclose(logits(tiny_moe), before)
    torch.testing.assert_close(logits(tiny_moe, tokens=1), step)
    effect = read_back(tiny_moe, switch)
    assert 0.4 < effect.facts["share_dropped"] <= 0.6


@pytest.mark.parametrize("level", ["int8", "int4"])
def test_experts_are_packed_and_the_rest_is_kept(tiny_moe: Subject, level: Any) -> None:
    switch = QuantizeExperts(level=level)
    apply_switch(tiny_moe, switch)
    effect = read_back(tiny_moe, switch)
    assert effect.took_effect
    assert effect.facts["expert_matrices"] == 3 * 4 * 2
    assert isinstance(tiny_moe.model.model.layers[0].self_attn.q_proj, nn.Linear)
    assert logits(tiny_moe).isfinite().all()


@pytest.mark.parametrize(
    ("switch", "allowed"),
    [
        (ExpertTopK(count=5), "1 to 4 experts"),
        (PruneExperts(count=3), "at most 2 experts"),
        (MergeExperts(count=5), "1 to 4 experts"),
        (SplitExperts(), "a dense model"),
    ],
)
def test_what_a_model_cannot_have_is_refused(switch: Any, allowed: str, tiny_moe: Subject) -> None:
    with pytest.raises(RecipeError, match=switch.kind) as refused:
        Recipe(switches={switch.kind: switch}).check(tiny_moe.facts)
    assert allowed in refused.value.allowed


def test_a_dense_model_is_told_that_it_has_no_experts(tiny_llama: Subject) -> None:
    assert "mixture of experts" in str(ExpertTopK(count=1).unfit(tiny_llama.facts))
    assert "divides the 128 neurons" in str(SplitExperts(experts=7, top_k=1).unfit(tiny_llama.facts))
    assert "top_k from 1 to 4" in str(SplitExperts(experts=4, top_k=5).unfit(tiny_llama.facts))
    with pytest.raises(RecipeError) as refused:
        apply_switch(tiny_llama, ExpertTopK(count=1))
    assert "Mixtral" in refused.value.allowed


def test_without_text_it_says_what_is_missing(tiny_moe: Subject, tiny_llama: Subject) -> None:
    tiny_moe.sample_ids = tiny_llama.sample_ids = []
    with pytest.raises(RecipeError) as refused:
        apply_switch(tiny_moe, PruneExperts())
    assert "some text" in refused.value.allowed
    with pytest.raises(RecipeError):
        apply_switch(tiny_llama, SplitExperts(experts=4, top_k=2))


def test_weights_that_are_no_numbers_are_named(tiny_moe: Subject) -> None:
    parts_of(tiny_moe)[1].experts[2].down_proj.weight[0, 0] = float("nan")
    with pytest.raises(RecipeError) as refused:
        apply_switch(tiny_moe, PruneExperts())
    assert refused.value.value == "expert 2 of layer 1"


def test_joined_experts_stand_beside_no_other_switch_of_experts() -> None:
    with pytest.raises(RecipeError, match="one dense part"):
        Recipe.read({"switches": {"merge_experts": {}, "expert_top_k": {}}})
