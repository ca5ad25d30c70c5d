"""HQQ in the kernel's numbers: it errs less in its own norm, and bears weights that it cannot fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from backend.recipe.switch import read_switch
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.quantize.hqq import fitted, norm_error
from backend.techniques.quantize.int4_linear import nearest_weight
from backend.techniques.registry import apply_switch, read_back


@pytest.mark.parametrize("group", [32, 64, 128])
def test_weights_err_less_in_its_norm(group: int) -> None:
    weight = torch.randn(96, 256, generator=torch.Generator().manual_seed(1))
    groups = fitted(weight, group)
    assert groups.codes.shape == (96, 256)
    assert groups.scales_and_zeros.shape == (256 // group, 96, 2)
    assert norm_error(weight, groups.weight()) < norm_error(weight, nearest_weight(weight, group))


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_groups_of_equal_weights_are_kept(value: float) -> None:
    weight = torch.full((16, 64), value)
    assert torch.allclose(fitted(weight, 32).weight(), weight, rtol=0.01)


def test_the_receipt_has_both_errors(any_subject: Subject) -> None:
    switch = read_switch("hqq", {})
    apply_switch(any_subject, switch)
    effect = read_back(any_subject, switch)
    assert effect.took_effect
    assert effect.facts["codes_chosen_by"] == "HQQ x 21"
    assert 0 < effect.facts["weight_error"] < effect.facts["weight_error_to_nearest"]
    assert "only quality moves" in effect.facts["speed_and_bytes"]


@pytest.mark.parametrize("kind", ["hqq", "narrow_weight_only", "int4_weight_only"])
def test_a_layer_with_weights_that_are_no_numbers_stays_and_says_why(build: Callable[..., Subject], kind: str) -> None:
    subject, switch = build("llama"), read_switch(kind, {})
    decoder_layers(subject.model)[0].self_attn.q_proj.weight.data[2] = torch.inf  # type: ignore[union-attr, index, operator]
    apply_switch(subject, switch)
    said = {skipped.layer: skipped.reason for skipped in read_back(subject, switch).skipped}
    assert said["model.layers.0.self_attn.q_proj"] == "some of its weights are no finite numbers"
