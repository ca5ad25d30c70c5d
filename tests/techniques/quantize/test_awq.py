"""AWQ: scales that pay, folded so that the function stays what it was."""

from __future__ import annotations

import pytest
import torch

from backend.recipe.switch import read_switch
from backend.techniques.base import Subject
from backend.techniques.hessian import output_error
from backend.techniques.quantize.awq import best_scale, choose_all
from backend.techniques.quantize.fold import Fold, folds, unchanged
from backend.techniques.quantize.int4_linear import nearest_weight
from backend.techniques.registry import apply_switch, read_back
from backend.techniques.walk import Heard


def with_outliers(width: int = 128) -> tuple[torch.Tensor, Heard]:
    generator = torch.Generator().manual_seed(3)
    weight, inputs = torch.randn(64, width, generator=generator), torch.randn(500, width, generator=generator)
    inputs[:, [4, 70]] *= 30
    return weight, Heard(2 / 500 * inputs.T @ inputs, inputs.abs().mean(dim=0))


def test_inputs_that_are_large_get_large_scales_and_outputs_err_less() -> None:
    weight, heard = with_outliers()
    scale = best_scale([weight], heard, 32)
    assert set(scale.topk(2).indices.tolist()) == {4, 70}
    ours = nearest_weight(weight * scale, 32) / scale
    assert output_error(weight, ours, heard.hessian) < 0.8 * output_error(
        weight, nearest_weight(weight, 32), heard.hessian
    )


def test_even_inputs_keep_their_weights_as_they_are() -> None:
    weight, heard = with_outliers()
    heard = Heard(torch.eye(128), torch.ones(128))
    assert torch.equal(best_scale([weight], heard, 32), torch.ones(128))


def test_inputs_that_were_never_there_keep_the_scale_1() -> None:
    weight, heard = with_outliers()
    heard.mean[9] = 0
    heard.hessian[9] = heard.hessian[:, 9] = 0
    assert best_scale([weight], heard, 32)[9] == 1


def test_folding_leaves_the_function_as_it_was(any_subject: Subject) -> None:
    switch = read_switch("awq", {"tokens": 256})
    assert any_subject.read_text
    chosen = choose_all(any_subject, switch, any_subject.read_text("", 256))  # type: ignore[arg-type]
    assert len(chosen.folds) == 9  # three a layer
    every = folds(any_subject, "awq")
    with unchanged(any_subject):
        for index, scale in chosen.folds.items():
            every[index].apply(scale)
    # The codes are those of the folded weights.
    for name, layer in any_subject.linears().items():
        if name in chosen.groups:
            off = chosen.groups[name].weight()[:, : layer.in_features] - layer.weight
            assert (off.norm() / layer.weight.norm()).item() < 0.2


@pytest.mark.parametrize("search", [False, True])
def test_scales_are_read_back_as_folded(any_subject: Subject, search: bool) -> None:
    switch = read_switch("awq", {"tokens": 256, "search": search})
    apply_switch(any_subject, switch)
    effect = read_back(any_subject, switch)
    assert effect.took_effect
    assert effect.facts["folded_scales"] == 9
    assert effect.facts["output_error"] <= effect.facts["output_error_to_nearest"]


def test_scales_near_1_are_folded_as_exactly_as_large_ones(any_subject: Subject) -> None:
    before = [fold.readers[0].weight.detach().clone() for fold in folds(any_subject, "awq")]
    for size in (0.01, 3.0):
        with unchanged(any_subject):
            for fold in folds(any_subject, "awq"):
                width = fold.readers[0].in_features
                fold.apply(torch.linspace(-size, size, width).exp())
    after = [fold.readers[0].weight for fold in folds(any_subject, "awq")]
    assert all(not torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_norm_with_a_bias_is_divided_with_it() -> None:
    norm, reader, x = torch.nn.LayerNorm(32), torch.nn.Linear(32, 8), torch.randn(5, 32)
    with torch.no_grad():
        norm.bias += 0.7
        want = reader(norm(x))
        Fold(("reader",), (reader,), norm).apply(torch.linspace(0.5, 2, 32))
        assert torch.allclose(reader(norm(x)), want, atol=1e-5)
