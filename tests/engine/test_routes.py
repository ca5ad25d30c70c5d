"""What a live model of experts tells of its choices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from backend.engine.decode import Decoder
from backend.engine.routes import Routes
from backend.recipe.race import Sampling
from backend.techniques.base import Subject
from backend.techniques.expertlayers import expert_layers, unstack

EXPERTS = 4


@pytest.fixture
def tiny_moe(subject_of: Callable[..., Subject]) -> Subject:
    """A seeded Mixtral of three layers with four experts each, two a token."""
    torch.manual_seed(7)
    config = MixtralConfig(
        vocab_size=64, hidden_size=64, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=EXPERTS, initializer_range=0.15, sliding_window=None,
        pad_token_id=0,
    )  # fmt: skip
    subject = subject_of()
    subject.model = MixtralForCausalLM(config).eval()
    unstack(subject.model)
    return subject


def test_each_token_has_its_experts_one_step_later(tiny_moe: Subject, prompt: Callable[..., list[int]]) -> None:
    ids = prompt(12)
    decoder, routes = Decoder(tiny_moe, Sampling(), seed=1), Routes(tiny_moe.model)
    emitted = [decoder.start(ids, room=8)]
    routes.read_prompt()
    for _ in range(5):
        step = decoder.step()
        emitted += step
        routes.read_step(len(step))
    told = routes.told()
    assert told["experts"] == EXPERTS
    assert [sum(row) for row in told["prompt"]["counts"]] == [24, 24, 24]
    assert told["prompt"]["pairs"] == 72
    assert len(told["picks"]) == len(emitted) - 1
    assert routes.told() == {"experts": EXPERTS, "picks": []}
    with torch.inference_mode():  # the whole text in one call makes the same choices
        whole_text = ids + [one.token for one in emitted[:-1]]
        tiny_moe.model(input_ids=torch.tensor([whole_text]), use_cache=False)
    whole = [layer.picked[len(ids) :].tolist() for layer in expert_layers(tiny_moe.model).values()]
    assert told["picks"] == [list(token) for token in zip(*whole, strict=True)]


def test_a_dense_model_tells_nothing(subject_of: Callable[..., Subject]) -> None:
    assert not Routes(subject_of().model)
