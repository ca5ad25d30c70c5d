"""Layers of torchao, which run on CUDA and are made and counted on any device."""

from __future__ import annotations

import torch
from torch import nn

from backend.techniques.base import Subject
from backend.techniques.quantize.census import layer_format
from backend.techniques.quantize.counting import layer_bytes
from backend.techniques.quantize.torchao_layers import int4_layer, int8_layer


def test_a_layer_of_torchao_is_counted_and_leaves_the_shared_weight(tiny_llama: Subject) -> None:
    head = tiny_llama.model.get_output_embeddings()
    before = head.weight.detach().clone()
    packed = int8_layer(head)
    assert layer_format(packed) == "int8"
    assert head.weight.numel() < layer_bytes(packed) < 1.1 * head.weight.numel()
    assert torch.equal(tiny_llama.model.get_input_embeddings().weight, before)
    x = torch.randn(3, 64)
    want = head(x).detach()
    assert 0 < (packed(x) - want).norm() / want.norm() < 0.02


def test_torchao_names_the_group_that_does_not_divide() -> None:
    assert int4_layer(nn.Linear(48, 32), 32) == "48 inputs are no multiple of the group of 32"
