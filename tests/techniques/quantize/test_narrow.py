"""Fewer levels in the int4 layout, and symmetric ones: read from the live kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backend.recipe.switch import read_switch
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.narrow_weight_only import levels_of
from backend.techniques.registry import apply_switch, read_back

Run = Callable[[Subject], Tensor]


def change(subject: Subject, kind: str, **fields: Any) -> Effect:
    switch = read_switch(kind, fields)
    apply_switch(subject, switch)
    return read_back(subject, switch)


@pytest.mark.parametrize(("bits", "symmetric", "levels"), [(3, False, 8), (3, True, 7), (2, False, 4), (2, True, 3)])
def test_live_weights_take_as_many_levels_as_their_bits_have(
    any_subject: Subject, logits: Run, bits: int, symmetric: bool, levels: int
) -> None:
    effect = change(any_subject, "narrow_weight_only", bits=bits, symmetric=symmetric)
    assert effect.facts["levels_of_a_weight"] == levels
    assert effect.facts["bits_per_weight"] > 4  # what is really held
    assert effect.summary.endswith(f"; {levels} levels a weight as in {bits} bits, speed and bytes of int4")
    assert torch.isfinite(logits(any_subject)).all()


def test_fewer_bits_are_further_off(build: Callable[..., Subject], logits: Run) -> None:
    want = logits(build("llama"))
    off = []
    for kind, fields in [
        ("int4_weight_only", {}),
        ("narrow_weight_only", {"bits": 3}),
        ("narrow_weight_only", {"bits": 2}),
    ]:
        subject = build("llama")
        change(subject, kind, **fields)
        off.append(float((logits(subject) - want).norm()))
    assert off == sorted(off)


def test_four_bits_are_not_taken_for_three(tiny_llama: Subject) -> None:
    change(tiny_llama, "int4_weight_only")
    assert not read_back(tiny_llama, read_switch("narrow_weight_only", {})).took_effect


def test_a_bias_is_no_level() -> None:
    torch.manual_seed(0)
    layer = Int4Linear(nn.Linear(64, 48), 32)
    assert levels_of(layer) == 16
    assert layer.bias is not None


def test_symmetric_int4_is_read_from_the_live_zeros(tiny_gqa: Subject, logits: Run) -> None:
    want = logits(tiny_gqa)
    effect = change(tiny_gqa, "int4_weight_only", symmetric=True)
    assert effect.took_effect
    assert effect.facts["symmetric_layers"] == 21
    assert float((logits(tiny_gqa) - want).norm() / want.norm()) < 0.5
    assert not tiny_gqa.model.model.layers[0].mlp.up_proj.scales_and_zeros[..., 1].any()  # type: ignore[union-attr]


def test_asymmetric_int4_is_not_taken_for_symmetric(tiny_gqa: Subject) -> None:
    change(tiny_gqa, "int4_weight_only")
    assert not read_back(tiny_gqa, read_switch("int4_weight_only", {"symmetric": True})).took_effect
