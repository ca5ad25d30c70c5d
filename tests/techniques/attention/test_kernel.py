"""The attention kernel: the same result, and the operations that really ran."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import AttentionKernel
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back


def test_eager_equals_sdpa(any_subject: Subject, logits: Callable[[Subject], Tensor]) -> None:
    before = logits(any_subject)
    apply_switch(any_subject, AttentionKernel(name="eager"))
    torch.testing.assert_close(logits(any_subject), before, atol=1e-4, rtol=1e-4)


def test_the_operations_tell_the_kernels_apart(any_subject: Subject) -> None:
    assert not read_back(any_subject, AttentionKernel(name="eager")).took_effect
    fused = read_back(any_subject, AttentionKernel(name="sdpa"))
    assert fused.took_effect
    assert fused.facts["ran"].startswith("sdpa")
    apply_switch(any_subject, AttentionKernel(name="eager"))
    eager = read_back(any_subject, AttentionKernel(name="eager"))
    assert eager.took_effect
    assert eager.facts["ran"] == "eager"
    assert eager.facts["calls"] == any_subject.facts.layers


def test_a_config_that_lies_is_found_out(tiny_llama: Subject) -> None:
    apply_switch(tiny_llama, AttentionKernel(name="eager"))
    lying = AttentionKernel(name="sdpa")
    assert not read_back(tiny_llama, lying).took_effect


@pytest.mark.skipif(torch.cuda.is_available(), reason="FlashAttention may be there")
def test_a_missing_package_is_a_card(tiny_llama: Subject) -> None:
    with pytest.raises(RecipeError, match="sdpa or eager"):
        apply_switch(tiny_llama, AttentionKernel(name="flash_attention_2"))
    assert tiny_llama.model.config._attn_implementation == "sdpa"
