"""Magnitude pruning: the smallest weights are zero, everything else is as it was."""

from __future__ import annotations

import pytest
import torch

from backend.recipe.switches.sparsity import Magnitude
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.registry import apply_switch, read_back


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_the_smallest_of_every_matrix_are_zero(any_subject: Subject, ratio: float) -> None:
    weight = decoder_layers(any_subject.model)[0].mlp.up_proj.weight
    before = weight.detach().clone()
    apply_switch(any_subject, Magnitude(ratio=ratio))
    zero = weight == 0
    assert zero.float().mean().item() == pytest.approx(ratio, abs=1e-3)
    assert before[zero].abs().max() <= before[~zero].abs().min()
    torch.testing.assert_close(weight[~zero], before[~zero])


def test_embeddings_and_head_stay(tiny_gemma: Subject) -> None:
    table = tiny_gemma.model.get_input_embeddings().weight
    before = table.detach().clone()
    apply_switch(tiny_gemma, Magnitude())
    torch.testing.assert_close(table, before)
    torch.testing.assert_close(tiny_gemma.model.get_output_embeddings().weight, before)


def test_sparsity_is_counted_and_simulated(tiny_llama: Subject) -> None:
    assert not read_back(tiny_llama, Magnitude(ratio=0.5)).took_effect
    apply_switch(tiny_llama, Magnitude(ratio=0.5))
    effect = read_back(tiny_llama, Magnitude(ratio=0.5))
    assert effect.took_effect
    assert effect.simulated
    assert effect.facts["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert "gain nothing" in effect.summary


def test_a_weight_restored_later_lowers_the_count(tiny_llama: Subject) -> None:
    apply_switch(tiny_llama, Magnitude(ratio=0.5))
    for layer in decoder_layers(tiny_llama.model):
        torch.nn.init.ones_(layer.mlp.up_proj.weight)
    effect = read_back(tiny_llama, Magnitude(ratio=0.5))
    assert not effect.took_effect
    assert effect.facts["sparsity"] == pytest.approx(0.4)
