"""Bytes held, against sums by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from backend.recipe.switch import read_switch
from backend.techniques.base import Subject
from backend.techniques.quantize.counting import layer_bytes, weight_bytes
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.registry import apply_switch, read_back


def test_a_shared_weight_counts_once() -> None:
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 10, bias=False))
    model[1].weight = model[0].weight
    assert weight_bytes(model) == 10 * 8 * 4
    model[1].weight = nn.Parameter(model[0].weight.detach().clone())
    assert weight_bytes(model) == 2 * 10 * 8 * 4


def test_a_view_counts_the_storage_that_it_keeps_alive() -> None:
    model = nn.Linear(8, 10, bias=False)
    model.weight = nn.Parameter(model.weight.detach()[:2])
    assert weight_bytes(model) == 10 * 8 * 4


def test_int8_holds_a_byte_a_weight_and_six_a_row() -> None:
    layer = Int8Linear(nn.Linear(64, 32))
    assert layer_bytes(layer) == 32 * 64 + 32 * (4 + 2) + 32 * 4
    assert layer_bytes(layer, bias=False) == 32 * 64 + 32 * 6


def test_int4_holds_half_a_byte_a_weight_and_four_a_group() -> None:
    assert weight_bytes(Int4Linear(nn.Linear(64, 32, bias=False), 32)) == 32 * 64 // 2 + 32 * 2 * 4


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_packed_weight_of_torch_is_seen() -> None:
    layer = torch.ao.nn.quantized.dynamic.Linear(64, 32)
    held = layer_bytes(layer, bias=False)
    # Column sums, a scale and a zero point; onednn, chosen where there is no x86 engine, holds the matrix twice.
    assert held - (4 * 32 + 8) in (64 * 32, 2 * 64 * 32)
    assert layer_bytes(layer) == held + 4 * 32


def test_counting_a_large_packed_layer_does_not_unpack_it(tiny_llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = read_switch("int8_dynamic", {})
    apply_switch(tiny_llama, switch)
    unpacked: list[int] = []
    original = torch.ao.nn.quantized.dynamic.Linear._weight_bias

    def watched(layer: Any) -> Any:
        unpacked.append(layer.in_features * layer.out_features)
        return original(layer)

    monkeypatch.setattr(torch.ao.nn.quantized.dynamic.Linear, "_weight_bias", watched)
    assert weight_bytes(tiny_llama.model) > 0
    assert read_back(tiny_llama, switch).took_effect
    assert unpacked
    assert max(unpacked) == 64 * 64
