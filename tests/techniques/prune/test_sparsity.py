"""What holds for every way to set weights to zero: shares, patterns, what is skipped, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switch import all_switches, read_switch
from backend.recipe.switches.sparsity import Sparsity
from backend.techniques.base import CalibrationText, Effect, Subject, decoder_layers, replace_module
from backend.techniques.prune.masks import holds
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]
KINDS = sorted(kind for kind, switch in all_switches().items() if issubclass(switch, Sparsity))
CALIBRATED = [kind for kind in KINDS if kind != "magnitude"]
SCOPED = ["gradient", "magnitude"]


def change(subject: Subject, kind: str, **fields: Any) -> Effect:
    switch = read_switch(kind, fields)
    apply_switch(subject, switch)
    return read_back(subject, switch)


def weights(subject: Subject) -> dict[str, Tensor]:
    head = subject.model.get_output_embeddings()
    return {name: layer.weight.detach() for name, layer in subject.linears().items() if layer is not head}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_every_matrix_has_its_share_and_the_head_none(any_subject: Subject, kind: str, ratio: float) -> None:
    head = any_subject.model.get_output_embeddings().weight
    before = head.detach().clone()
    effect = change(any_subject, kind, ratio=ratio)
    assert effect.took_effect, effect.summary
    assert effect.simulated
    for name, weight in weights(any_subject).items():
        assert (weight == 0).float().mean().item() == pytest.approx(ratio, abs=0.01), name
    assert torch.equal(any_subject.model.get_output_embeddings().weight, before)
    assert effect.facts["sparsity"] == pytest.approx(ratio, abs=0.01)
    assert effect.facts["least_of_a_matrix"] == pytest.approx(ratio, abs=0.01)
    assert "gain nothing" in effect.summary


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "64x1"])
def test_patterns_hold_in_the_live_weights(build: Build, kind: str, pattern: Any) -> None:
    subject = build("llama")
    effect = change(subject, kind, pattern=pattern)
    assert effect.took_effect, effect.summary
    assert all(holds(pattern, weight, 0.5) for weight in weights(subject).values())
    assert effect.facts["matrices_in_pattern"] == "21 of 21"
    assert f"21 of 21 matrices in {pattern}" in effect.summary
    weight = decoder_layers(subject.model)[1].mlp.down_proj.weight
    weight.data[tuple((weight == 0).nonzero()[0])] = 1.0
    broken = read_back(subject, read_switch(kind, {"pattern": pattern}))
    assert not broken.took_effect
    assert broken.facts["matrices_in_pattern"] == "20 of 21"


@pytest.mark.parametrize("kind", KINDS)
def test_a_matrix_that_the_pattern_does_not_fit_is_skipped_with_the_reason(build: Build, kind: str) -> None:
    subject = build("llama", intermediate_size=130)
    effect = change(subject, kind, pattern="2:4")
    assert effect.took_effect
    skipped = {one.layer: one.reason for one in effect.skipped}
    assert sorted(skipped) == [f"model.layers.{index}.mlp.down_proj" for index in range(3)]
    assert skipped["model.layers.0.mlp.down_proj"] == "its 130 inputs are no multiple of 4, which 2:4 needs"
    assert (decoder_layers(subject.model)[0].mlp.down_proj.weight != 0).all()


@pytest.mark.parametrize("kind", SCOPED)
def test_over_all_layers_matrices_lose_different_shares(any_subject: Subject, kind: str) -> None:
    decoder_layers(any_subject.model)[1].mlp.up_proj.weight.data.mul_(0.1)
    effect = change(any_subject, kind, scope="global")
    assert effect.took_effect, effect.summary
    assert effect.facts["zeros"] == effect.facts["zeros_asked"]
    assert effect.facts["most_of_a_matrix"] > effect.facts["least_of_a_matrix"] + 0.2


@pytest.mark.parametrize("kind", CALIBRATED)
def test_a_second_run_takes_the_same_weights_from_the_shelf(build: Build, tmp_path: Path, kind: str) -> None:
    found, kept = [], []
    for _ in range(2):
        subject = replace(build("gemma"), shelf=tmp_path)
        kept.append(change(subject, kind, tokens=256).facts["calibration_kept"])
        found.append(torch.cat([weight.flatten() for weight in weights(subject).values()]))
    assert kept == ["computed now", "taken from the shelf"]
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", CALIBRATED)
def test_progress_is_told_and_gradients_are_given_back(tiny_gqa: Subject, kind: str) -> None:
    heard: list[str] = []
    tiny_gqa.progress = lambda share, text: heard.append(text)
    tiny_gqa.model.requires_grad_(False)
    change(tiny_gqa, kind, tokens=256)
    assert len(heard) >= 2
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in tiny_gqa.model.parameters())


@pytest.mark.parametrize("kind", CALIBRATED)
def test_without_text_it_is_refused(tiny_llama: Subject, kind: str) -> None:
    tiny_llama.read_text, tiny_llama.sample_ids = None, []
    with pytest.raises(RecipeError, match="at least 256 tokens"):
        change(tiny_llama, kind)
    tiny_llama.read_text = lambda file, tokens: CalibrationText([1] * 100, "a note")
    with pytest.raises(RecipeError, match="100 tokens of a note"):
        change(tiny_llama, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_numbers_are_refused_by_name(tiny_llama: Subject, kind: str) -> None:
    decoder_layers(tiny_llama.model)[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(RecipeError, match=r"layers\.1\.mlp\.up_proj"):
        change(tiny_llama, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_weights_are_refused_with_the_reason(tiny_llama: Subject, kind: str) -> None:
    change(tiny_llama, "int8_weight_only")
    with pytest.raises(RecipeError, match="held by Int8Linear, not as a matrix of floats"):
        change(tiny_llama, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_linear_layers_is_refused(tiny_llama: Subject, kind: str) -> None:
    for name in list(weights(tiny_llama)):
        replace_module(tiny_llama.model, name, nn.Identity())
        del tiny_llama.model.get_submodule(name.rpartition(".")[0])._modules[name.rpartition(".")[2]]
    with pytest.raises(RecipeError, match="a model with linear layers"):
        change(tiny_llama, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_a_ratio_that_is_none_is_an_error(kind: str, ratio: float) -> None:
    with pytest.raises(RecipeError, match=rf"switches\.{kind}\.ratio"):
        read_switch(kind, {"ratio": ratio})


@pytest.mark.parametrize("kind", KINDS)
def test_a_ratio_of_nothing_or_against_the_pattern_is_refused(tiny_llama: Subject, kind: str) -> None:
    facts = tiny_llama.facts
    assert "above 0" in (read_switch(kind, {"ratio": 0.0}).unfit(facts) or "")
    assert "a ratio of 0.5" in (read_switch(kind, {"ratio": 0.6, "pattern": "2:4"}).unfit(facts) or "")
    assert read_switch(kind, {"ratio": 0.6, "pattern": "64x1"}).unfit(facts) is None


@pytest.mark.parametrize("kind", SCOPED)
def test_a_pattern_over_all_layers_is_refused(tiny_llama: Subject, kind: str) -> None:
    asked = read_switch(kind, {"scope": "global", "pattern": "64x1"})
    assert "fixes the share of every matrix" in (asked.unfit(tiny_llama.facts) or "")


def test_two_that_choose_clash() -> None:
    with pytest.raises(RecipeError, match="both choose which weights become zero"):
        Recipe.read({"switches": {"magnitude": {}, "wanda": {}}})


@pytest.mark.parametrize("kind", ["magnitude", "gradient"])
def test_equal_importance_goes_by_index_and_is_said(tiny_llama: Subject, kind: str) -> None:
    layer = decoder_layers(tiny_llama.model)[0].mlp.up_proj
    nn.init.zeros_(layer.weight) if kind == "gradient" else nn.init.ones_(layer.weight)
    effect = change(tiny_llama, kind)
    equal = {"magnitude": 1, "gradient": 3}[kind]  # through an up projection of zeros nothing reaches gate and down
    assert effect.facts["equal_importance"] == f"{equal} matrices: there the index decided"
    assert "the first went" in effect.summary
    if kind == "magnitude":
        assert (layer.weight.flatten()[: 64 * 128 // 2] == 0).all()
        assert (layer.weight.flatten()[64 * 128 // 2 :] == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_survive_packing(tiny_llama: Subject, kind: str) -> None:
    change(tiny_llama, kind)
    change(tiny_llama, "int8_weight_only")
    effect = read_back(tiny_llama, read_switch(kind, {}))
    assert effect.took_effect
    assert effect.facts["counted"] == "live"
