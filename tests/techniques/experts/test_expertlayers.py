"""Experts as linear layers compute what transformers computes, for every build of theirs that is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from backend.techniques.base import Subject
from backend.techniques.expertlayers import Expert, Experts, expert_layers, linear_of, stacked_names, unstack

BUILDS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 64},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 48, "norm_topk_prob": True},
    "olmoe": {"num_experts": 4},
}


def model_of(kind: str) -> Any:
    torch.manual_seed(3)
    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
             "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts_per_tok": 2, "initializer_range": 0.2,
             "pad_token_id": 0}  # fmt: skip
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **BUILDS[kind])).eval()


@pytest.mark.parametrize("tokens", [1, 2, 17])
@pytest.mark.parametrize("kind", BUILDS)
@torch.inference_mode()
def test_the_same_numbers_as_transformers(kind: str, tokens: int) -> None:
    model, ids = model_of(kind), torch.arange(1, tokens + 1)[None]
    before, parameters = model(input_ids=ids).logits, sum(p.numel() for p in model.parameters())
    assert unstack(model) == 2
    assert sum(p.numel() for p in model.parameters()) == parameters
    torch.testing.assert_close(model(input_ids=ids).logits, before, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_names_of_the_stacks_put_the_blocks_together_again() -> None:
    model = model_of("mixtral")
    was = dict(model.state_dict())
    unstack(model)
    now = dict(model.state_dict())
    for stack, names in stacked_names(model).items():
        assert torch.equal(torch.stack([now.pop(name) for name in names]), was[stack])


def tens(expert: int) -> Expert:
    """An expert that gives 10 ** expert for an input of 1: gate and up are one, the activation leaves them."""
    return Expert(linear_of(torch.ones(2, 1)), linear_of(torch.tensor([[10.0**expert]])), nn.Identity())


@torch.inference_mode()
def test_by_hand_which_expert_gets_what() -> None:
    experts = Experts([tens(0), tens(1), tens(2)])
    chosen, weights = torch.tensor([[0, 2], [1, 0]]), torch.tensor([[0.5, 0.25], [1.0, 2.0]])
    assert experts(torch.ones(2, 1), chosen, weights).flatten().tolist() == [25.5, 12.0]
    assert experts(torch.ones(1, 1), chosen[:1], weights[:1]).item() == 25.5


@torch.inference_mode()
def test_beyond_its_capacity_an_expert_drops_the_last_to_come() -> None:
    experts = Experts([tens(0), tens(1)])
    experts.capacity = 1.0  # of 4 tokens with one expert each: 2 for each expert
    chosen = torch.tensor([[0], [0], [1], [0]])
    out = experts(torch.ones(4, 1), chosen, torch.ones(4, 1))
    assert out.flatten().tolist() == [1.0, 1.0, 10.0, 0.0]
    assert experts.dropped == 1
    assert experts(torch.ones(1, 1), chosen[:1], torch.ones(1, 1)).item() == 1.0
    assert experts.dropped == 0


@torch.inference_mode()
def test_only_the_experts_that_are_hit_compute() -> None:
    experts, ran = Experts([tens(0), tens(1), tens(2)]), []
    for number, expert in enumerate(experts):
        expert.register_forward_hook(lambda *_, number=number: ran.append(number))
    experts(torch.ones(2, 1), torch.tensor([[2], [2]]), torch.ones(2, 1))
    experts(torch.ones(1, 1), torch.tensor([[1]]), torch.ones(1, 1))
    assert ran == [2, 1]


def test_a_dense_model_has_none(tiny_llama: Subject) -> None:
    assert unstack(tiny_llama.model) == 0
    assert expert_layers(tiny_llama.model) == {}
