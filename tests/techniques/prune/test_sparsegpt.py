"""SparseGPT on a model: what is left makes up for what went, and the receipt says by how much."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backend.recipe.switch import read_switch
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
def test_what_is_left_is_changed_and_outputs_err_less(build: Build, shape: str) -> None:
    subject = build(shape)
    weight = decoder_layers(subject.model)[1].mlp.down_proj.weight
    before = weight.detach().clone()
    apply_switch(subject, read_switch("sparsegpt", {"tokens": 512}))
    effect = read_back(subject, read_switch("sparsegpt", {"tokens": 512}))
    left = weight != 0
    assert not torch.allclose(weight[left], before[left])
    assert effect.facts["output_error"] < effect.facts["output_error_of_magnitude"]
    assert effect.facts["calibration_tokens"] == 512
    assert "layers' outputs off by" in effect.summary


def test_on_the_text_the_model_moves_less_than_with_magnitude(build: Build) -> None:
    def run(kind: str | None) -> Tensor:
        subject = build("llama")
        if kind:
            apply_switch(subject, read_switch(kind, {}))
        assert subject.read_text
        with torch.inference_mode():
            ids = torch.tensor([subject.read_text("", 256).ids])
            return torch.log_softmax(subject.model(input_ids=ids, use_cache=False).logits[0], -1)

    whole = run(None)
    loss = {kind: float((whole.exp() * (whole - run(kind))).sum(-1).mean()) for kind in ("sparsegpt", "magnitude")}
    assert loss["sparsegpt"] < loss["magnitude"]


def test_inputs_of_no_use_leave_a_layer_as_it_was_with_the_reason(build: Build) -> None:
    subject = build("llama")
    torch.nn.init.zeros_(decoder_layers(subject.model)[0].self_attn.v_proj.weight)  # nothing enters the output
    apply_switch(subject, read_switch("sparsegpt", {}))
    effect = read_back(subject, read_switch("sparsegpt", {}))
    reasons = {one.layer: one.reason for one in effect.skipped}
    assert "nothing that is of use" in reasons["model.layers.0.self_attn.o_proj"]
    assert effect.took_effect
