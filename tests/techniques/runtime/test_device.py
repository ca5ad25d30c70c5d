"""The device: every tensor of the model is there."""

from __future__ import annotations

import pytest
import torch

from backend.recipe.base import RecipeError
from backend.recipe.switches.runtime import Device
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back


def test_cpu_is_read_from_the_tensors(any_subject: Subject) -> None:
    apply_switch(any_subject, Device(name="cpu"))
    effect = read_back(any_subject, Device(name="cpu"))
    assert effect.took_effect
    assert any_subject.device == torch.device("cpu")


def test_a_model_that_lies_elsewhere_is_found_out(tiny_llama: Subject) -> None:
    tiny_llama.model.lm_head.to("meta")
    effect = read_back(tiny_llama, Device(name="cpu"))
    assert not effect.took_effect
    assert "meta" in effect.facts["tensors"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_gpu_is_a_card(tiny_llama: Subject) -> None:
    with pytest.raises(RecipeError, match="cpu"):
        apply_switch(tiny_llama, Device(name="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_moves_to_the_gpu(tiny_llama: Subject) -> None:
    apply_switch(tiny_llama, Device(name="cuda"))
    assert read_back(tiny_llama, Device(name="cuda")).took_effect
    assert tiny_llama.model.device.type == "cuda"
