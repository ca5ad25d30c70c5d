"""GPTQ against a slow loop, against rounding to nearest, and on models: what enters, what is kept, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.recipe.base import RecipeError
from backend.recipe.switch import read_switch
from backend.techniques.base import CalibrationText, Effect, Subject, decoder_layers
from backend.techniques.hessian import inverse_factor, output_error
from backend.techniques.quantize.chosen import Chosen
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.quantize.gptq_rounding import gptq_rounding
from backend.techniques.quantize.groups import FOUR_BITS, blocks_of, ranges
from backend.techniques.quantize.int4_linear import Int4Linear, nearest_weight
from backend.techniques.registry import apply_switch, read_back

Run = Callable[[Subject], Tensor]
CALIBRATED = ["gptq", "awq"]


def change(subject: Subject, kind: str, **fields: Any) -> Effect:
    switch = read_switch(kind, fields)
    apply_switch(subject, switch)
    return read_back(subject, switch)


def problem(rows: int = 24, width: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights, and the Hessian of inputs that hang together and have outliers."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    inputs = torch.randn(600, 12, generator=generator) @ torch.randn(12, width, generator=generator)
    inputs += 0.3 * torch.randn(600, width, generator=generator)
    inputs[:, 7] *= 20
    return weight, 2 / 600 * inputs.T @ inputs


def slow_gptq(weight: Tensor, hessian: Tensor, group: int, damping: float) -> Tensor:
    """Algorithm 1 as a plain loop over columns: the inverse Hessian is updated for those left, with no factoring."""
    scale, zero = ranges(blocks_of(weight, group), FOUR_BITS)
    left = weight.double().clone()
    inverse = torch.linalg.inv(
        hessian.double() + damping * hessian.double().diagonal().mean() * torch.eye(len(hessian))
    )
    rounded = torch.empty_like(weight)
    for i in range(weight.shape[1]):
        s, z = scale[:, i // group, 0], zero[:, i // group, 0]
        rounded[:, i] = FOUR_BITS.nearest(left[:, i].float(), s, z)
        error = (left[:, i] - rounded[:, i]) / inverse[i, i]
        left -= error[:, None] * inverse[i]
        inverse = inverse - inverse[:, i : i + 1] @ inverse[i : i + 1] / inverse[i, i]
    return rounded


def test_it_equals_the_slow_loop() -> None:
    weight, hessian = problem()
    fast = gptq_rounding(weight, hessian, 32, FOUR_BITS, damping=0.01, act_order=False, search=False)
    assert fast is not None
    slow = slow_gptq(weight, hessian, 32, 0.01)
    assert ((fast.weight() - slow).abs() > 1e-4).float().mean() < 0.01  # ties may fall to either side


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("act_order", [False, True])
def test_outputs_err_less_than_with_rounding_to_nearest(group: int, search: bool, act_order: bool) -> None:
    weight, hessian = problem(width=192)
    groups = gptq_rounding(weight, hessian, group, FOUR_BITS, damping=0.01, act_order=act_order, search=search)
    assert groups is not None
    ours = output_error(weight, groups.weight(), hessian)
    assert ours < 0.6 * output_error(weight, nearest_weight(weight, group), hessian)


def test_more_than_one_block_of_columns_is_the_same_as_the_slow_loop() -> None:
    weight, hessian = problem(rows=4, width=288)
    fast = gptq_rounding(weight, hessian, 32, FOUR_BITS, damping=0.05, act_order=False, search=False)
    assert fast is not None
    slow = slow_gptq(weight, hessian, 32, 0.05)
    assert ((fast.weight() - slow).abs() > 1e-4).float().mean() < 0.02


@pytest.mark.parametrize("what", ["constant", "one input", "zeros but one"])
def test_a_singular_hessian_is_damped(what: str) -> None:
    weight, _ = problem(width=64)
    inputs = torch.ones(50, 64) if what == "constant" else torch.zeros(50, 64)
    if what == "one input":
        inputs[0] = torch.arange(64.0)
    elif what == "zeros but one":
        inputs[:, 3] = 5.0
    hessian = inputs.T @ inputs
    groups = gptq_rounding(weight, hessian, 32, FOUR_BITS, damping=1e-9, act_order=True, search=True)
    assert groups is not None
    assert output_error(weight, groups.weight(), hessian) <= output_error(weight, nearest_weight(weight, 32), hessian)


def test_a_hessian_of_no_numbers_has_no_factor() -> None:
    assert inverse_factor(torch.full((4, 4), torch.nan), 0.01) is None


def test_a_width_that_no_group_divides_is_padded() -> None:
    weight, hessian = problem(width=90)
    groups = gptq_rounding(weight, hessian, 32, FOUR_BITS, damping=0.01, act_order=True, search=True)
    assert groups is not None
    assert groups.codes.shape == (24, 96)
    rounded = groups.weight()[:, :90]
    assert output_error(weight, rounded, hessian) < output_error(weight, nearest_weight(weight, 32), hessian)


@pytest.mark.parametrize("kind", CALIBRATED)
def test_the_receipt_says_text_tokens_and_errors(any_subject: Subject, kind: str) -> None:
    effect = change(any_subject, kind, tokens=512)
    assert effect.took_effect
    assert effect.facts["calibration_tokens"] == 512
    assert effect.facts["calibration_text"] == "seeded tokens"
    assert effect.facts["calibration_kept"] == "computed now"
    assert effect.facts["codes_chosen_by"] == f"{kind.upper()} x 21"
    assert effect.facts["output_error"] < effect.facts["output_error_to_nearest"]
    assert effect.summary.startswith(
        f"21 of 22 linear layers int4, head int8; by {kind.upper()}: layers' outputs off by"
    )


@pytest.mark.parametrize("kind", ["gptq", "awq", "hqq", "narrow_weight_only"])
@pytest.mark.parametrize("head", ["int4", "int8", "keep"])
def test_bytes_are_those_of_rounding_to_nearest(build: Callable[..., Subject], kind: str, head: str) -> None:
    nearest, ours = build("gqa"), build("gqa")
    plain = change(nearest, "int4_weight_only", head=head, group_size=64)
    effect = change(ours, kind, head=head, group_size=64)
    assert weight_bytes(ours.model) == weight_bytes(nearest.model)
    assert effect.facts["bits_per_weight"] == plain.facts["bits_per_weight"]
    assert effect.facts["head"] == plain.facts["head"]


@pytest.mark.parametrize("kind", CALIBRATED)
def test_an_int4_head_is_chosen_too_and_the_embedding_stays(any_subject: Subject, kind: str) -> None:
    embedding = any_subject.model.get_input_embeddings().weight
    before = embedding.detach().clone()
    effect = change(any_subject, kind, head="int4")
    assert effect.facts["codes_chosen_by"] == f"{kind.upper()} x 22"
    assert torch.equal(any_subject.model.get_input_embeddings().weight, before)


def test_live_layers_multiply_with_the_codes_that_were_chosen(tiny_gqa: Subject) -> None:
    from backend.techniques.quantize.gptq import choose_all

    switch = read_switch("gptq", {"tokens": 256})
    assert tiny_gqa.read_text
    chosen = choose_all(tiny_gqa, switch, tiny_gqa.read_text("", 256))  # type: ignore[arg-type]
    back = Chosen.of(chosen.tensors())
    for name, layer in tiny_gqa.linears().items():
        if name in back.groups:
            assert torch.equal(back.groups[name].codes, chosen.groups[name].codes)
            packed = Int4Linear(layer, 32, back.groups[name], "GPTQ")
            x = torch.randn(3, layer.in_features)
            want = x @ back.groups[name].weight()[:, : layer.in_features].T
            assert ((packed(x) - want).norm() / want.norm()).item() < 6e-3


def test_a_second_run_takes_the_codes_from_the_shelf(
    build: Callable[..., Subject], tmp_path: Path, logits: Run
) -> None:
    for kind in CALIBRATED:
        outs, kept = [], []
        for _ in range(2):
            subject = replace(build("gemma"), shelf=tmp_path)
            kept.append(change(subject, kind, tokens=256).facts["calibration_kept"])
            outs.append(logits(subject))
        assert kept == ["computed now", "taken from the shelf"]
        assert torch.equal(*outs)


@pytest.mark.parametrize("kind", CALIBRATED)
def test_progress_is_told_for_every_layer(tiny_llama: Subject, kind: str) -> None:
    heard: list[str] = []
    tiny_llama.progress = lambda share, text: heard.append(text)
    change(tiny_llama, kind, tokens=256)
    assert sum(kind.upper() in text for text in heard) >= 3


@pytest.mark.parametrize("kind", CALIBRATED)
def test_a_text_that_is_too_short_is_refused(tiny_llama: Subject, kind: str) -> None:
    tiny_llama.read_text = lambda file, tokens: CalibrationText([1] * 100, "a note")
    with pytest.raises(RecipeError, match="at least 256 tokens"):
        change(tiny_llama, kind)


@pytest.mark.parametrize("kind", CALIBRATED)
def test_weights_that_are_no_numbers_are_refused_by_name(tiny_llama: Subject, kind: str) -> None:
    decoder_layers(tiny_llama.model)[1].mlp.up_proj.weight.data[0, 0] = torch.nan  # type: ignore[union-attr, index, operator]
    with pytest.raises(RecipeError, match=r"layers\.1\.mlp\.up_proj"):
        change(tiny_llama, kind)


@pytest.mark.parametrize("kind", CALIBRATED)
def test_a_layer_that_nothing_enters_is_rounded_to_nearest_and_named(
    any_subject: Subject, logits: Run, kind: str
) -> None:
    decoder_layers(any_subject.model)[1].mlp.up_proj.weight.data.zero_()  # type: ignore[union-attr, operator]
    effect = change(any_subject, kind, tokens=256)
    said = {skipped.layer: skipped.reason for skipped in effect.skipped}
    assert "rounded to nearest" in said["model.layers.1.mlp.down_proj"]
    assert effect.facts["codes_chosen_by"] == f"{kind.upper()} x 20"
    assert torch.isfinite(logits(any_subject)).all()


@pytest.mark.parametrize("kind", CALIBRATED)
def test_constant_activations_are_borne(tiny_llama: Subject, logits: Run, kind: str) -> None:
    with torch.no_grad():
        tiny_llama.model.get_input_embeddings().weight[:] = 0.3  # every token is the same
    effect = change(tiny_llama, kind, tokens=256)
    assert effect.took_effect
    assert torch.isfinite(logits(tiny_llama)).all()


@pytest.mark.parametrize("kind", ["gptq", "awq", "hqq", "narrow_weight_only"])
def test_pruned_widths_are_padded_or_skipped_with_the_reason(
    build: Callable[..., Subject], logits: Run, kind: str
) -> None:
    subject = build("llama", intermediate_size=101)
    want = logits(subject)
    effect = change(subject, kind)
    assert effect.facts["layers_with_padded_inputs"] == 3
    assert ((logits(subject) - want).norm() / want.norm()).item() < 0.9
    narrow = build("llama", intermediate_size=24)
    said = {skipped.layer: skipped.reason for skipped in change(narrow, kind).skipped}
    assert said["model.layers.*.mlp.down_proj (3)"] == "24 inputs do not fill one group of 32"


@pytest.mark.parametrize("kind", ["gptq", "awq", "hqq", "narrow_weight_only"])
def test_a_gpu_and_a_group_that_does_not_divide_are_refused_before_loading(
    build: Callable[..., Subject], kind: str
) -> None:
    facts = build("llama").facts
    assert "CPU" in (read_switch(kind, {}).refuse(replace(facts, devices=("cuda", "cpu"))) or "")
    reason = read_switch(kind, {"group_size": 64}).refuse(replace(facts, hidden=96))
    assert reason == "a group size of 32: 64 does not divide the hidden size 96"
