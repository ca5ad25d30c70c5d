"""16-bit floats: what is cast, what stays, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backend.recipe.base import RecipeError
from backend.recipe.switch import read_switch
from backend.techniques.base import Subject
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.registry import apply_switch, read_back

Run = Callable[[Subject], Tensor]


def test_cast_changes_every_weight_and_keeps_the_rotary_frequencies(any_subject: Subject, logits: Run) -> None:
    want = logits(any_subject)
    model = any_subject.model
    before = weight_bytes(model)
    switch = read_switch("cast", {"dtype": "bf16"})
    apply_switch(any_subject, switch)
    effect = read_back(any_subject, switch)
    assert effect.took_effect
    assert effect.summary == "100% of the weights bfloat16"
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {b.dtype for name, b in model.named_buffers() if "inv_freq" in name} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert effect.facts["weight_bytes"] == weight_bytes(model) < 0.51 * before
    off = (logits(any_subject).float() - want).norm() / want.norm()
    assert 0 < off < 0.05


def test_cast_that_did_nothing_is_found_out(tiny_llama: Subject) -> None:
    effect = read_back(tiny_llama, read_switch("cast", {}))
    assert not effect.took_effect
    assert effect.summary == "0% of the weights bfloat16"


def test_a_cast_to_what_is_there_already_is_no_effect(tiny_llama: Subject) -> None:
    """As on a GPU, where the baseline is bf16."""
    tiny_llama.model.to(torch.bfloat16)
    apply_switch(tiny_llama, read_switch("cast", {}))
    effect = read_back(tiny_llama, read_switch("cast", {}))
    assert not effect.took_effect
    assert effect.summary == "100% of the weights bfloat16, as before"


def test_fp16_on_a_cpu_is_refused(tiny_llama: Subject) -> None:
    with pytest.raises(RecipeError, match="bf16 on a CPU"):
        apply_switch(tiny_llama, read_switch("cast", {"dtype": "fp16"}))
