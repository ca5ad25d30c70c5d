"""8-bit activations: the layer against integer arithmetic, ranges against what was shown, and factors folded away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switch import read_switch
from backend.recipe.switches.activations import SmoothQuant
from backend.techniques.base import CalibrationText, Subject
from backend.techniques.calibrate import fingerprint
from backend.techniques.quantize.fold import Fold, folds, unchanged
from backend.techniques.quantize.observers import Observer, fixed_range
from backend.techniques.quantize.smoothquant import smoothing
from backend.techniques.quantize.w8a8_linear import StaticRange, W8A8Linear, levels
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]


def linear(width_in: int, width_out: int, bias: bool = True) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(width_in, width_out, bias=bias).eval()


def weights_as_held(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    scale = layer.weight.detach().abs().amax(1) / 127
    return torch.round(layer.weight.detach() / scale[:, None]).long(), scale


def answer(subject: Subject) -> Tensor:
    with torch.inference_mode():
        out: Tensor = subject.model(input_ids=torch.tensor([subject.sample_ids[:24]]), use_cache=False).logits
    return out


def off(subject: Subject, before: Tensor) -> float:
    return float((answer(subject) - before).norm() / before.norm())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width_in", "width_out"), [(64, 48), (37, 5)])
def test_a_scale_a_token_is_integer_arithmetic(width_in: int, width_out: int, bias: bool) -> None:
    layer = linear(width_in, width_out, bias)
    x = torch.randn(3, 2, width_in)
    codes, scale = weights_as_held(layer)
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    span = high - low
    held = torch.round((x - low) / span * levels()).long()
    product = (held @ codes.t()).float() * scale * span / levels() + low * codes.sum(1) * scale
    wanted = product + (layer.bias.detach() if bias else 0)
    torch.testing.assert_close(W8A8Linear(layer)(x), wanted, rtol=1e-3, atol=1e-4)


def test_a_fixed_scale_is_integer_arithmetic() -> None:
    layer = linear(64, 48)
    x = torch.randn(5, 64)
    codes, scale = weights_as_held(layer)
    fixed = StaticRange(0.03, 100)
    held = (torch.round(x / fixed.scale) + fixed.zero).clamp(0, levels()).long() - fixed.zero
    wanted = (held @ codes.t()).float() * scale * fixed.scale + layer.bias.detach()
    torch.testing.assert_close(W8A8Linear(layer, fixed)(x), wanted, rtol=1e-4, atol=1e-4)


def test_a_token_is_computed_alike_alone_and_among_others() -> None:
    packed = W8A8Linear(linear(96, 80))
    x = torch.randn(33, 96)
    x[7] *= 300  # an outlier token must not touch the others
    assert torch.equal(packed(x)[5], packed(x[5:6])[0])


def test_a_token_of_zeros_gives_the_bias() -> None:
    layer = linear(32, 16)
    torch.testing.assert_close(W8A8Linear(layer)(torch.zeros(1, 32))[0], layer.bias.detach())


def test_ranges_are_what_was_shown() -> None:
    observer = Observer()
    numbers = torch.linspace(-1, 3, 4000)[:, None]
    observer.hear(numbers)
    observer.hear(torch.tensor([[40.0]]))
    assert observer.range("minmax", 0) == (-1.0, 40.0)
    low, high = observer.range("percentile", 1.0)
    assert low == pytest.approx(-0.98, abs=0.05)
    assert high == pytest.approx(2.98, abs=0.05)
    low, high = observer.range("mse", 0)
    assert -1.1 < low <= 0
    assert high < 40.1


@pytest.mark.parametrize("shape", ["normal", "heavy", "outliers", "gelu", "positive"])
def test_the_least_squared_error_is_no_more_than_that_of_torchs_own_search(shape: str) -> None:
    torch.manual_seed(5)
    normal = torch.randn(20_000, 1)
    numbers = {
        "normal": normal,
        "heavy": normal * torch.exp(torch.randn(20_000, 1)),
        "outliers": torch.cat([normal, torch.full((20, 1), 300.0)]),
        "gelu": nn.functional.gelu(3 * normal),
        "positive": normal.abs() + 5,
    }[shape]
    observer = Observer()
    observer.hear(numbers)
    low, high = (float(end) for end in observer._histogram._non_linear_param_search())
    error = rounded_error(numbers, *observer.range("mse", 0))
    assert error <= 1.05 * rounded_error(numbers, low, high)
    assert error <= 1.05 * rounded_error(numbers, *observer.range("minmax", 0))


def rounded_error(numbers: torch.Tensor, low: float, high: float) -> float:
    fixed = fixed_range(low, high)
    codes = (torch.round(numbers / fixed.scale) + fixed.zero).clamp(0, levels())
    return float((fixed.scale * (codes - fixed.zero) - numbers).square().mean())


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_a_range_holds_zero_exactly(one: float, other: float) -> None:
    fixed = fixed_range(min(one, other), max(one, other))
    assert fixed.scale > 0
    assert 0 <= fixed.zero <= levels()
    reach = (fixed.scale * (0 - fixed.zero), fixed.scale * (levels() - fixed.zero))
    assert reach[0] <= min(one, other, 0) + fixed.scale
    assert reach[1] >= max(one, other, 0) - fixed.scale


def test_smoothing_is_the_papers_formula() -> None:
    reader = linear(2, 2, bias=False)
    reader.weight.data = torch.tensor([[0.5, 1.0], [-2.0, 0.25]])
    group = Fold(("one",), (reader,), nn.Identity())
    got = smoothing(group, torch.tensor([8.0, 1.0]), 0.5)
    torch.testing.assert_close(got, torch.tensor([(8 / 2) ** 0.5, (1 / 1) ** 0.5]))
    torch.testing.assert_close(smoothing(group, torch.tensor([8.0, 0.0]), 0.5)[1], torch.tensor(1.0))


@pytest.mark.parametrize("name", ["llama", "gqa", "gemma"])
def test_folding_leaves_the_model_as_it_was(build: Build, name: str) -> None:
    subject = build(name)
    before = answer(subject)
    found = folds(subject, "smoothquant")
    assert len(found) == 3 * subject.facts.layers
    with unchanged(subject):
        for number, group in enumerate(found):
            width = group.readers[0].in_features
            group.apply(torch.rand(width, generator=torch.Generator().manual_seed(number)) * 3 + 0.2)
    assert off(subject, before) < 1e-4


def test_a_fold_that_changes_the_model_is_an_error(build: Build) -> None:
    subject = build("llama")
    with pytest.raises(RuntimeError, match="folding changed"), unchanged(subject):
        subject.model.model.layers[0].mlp.up_proj.weight.data.mul_(2)


@pytest.mark.parametrize("name", ["llama", "gemma"])
@pytest.mark.parametrize(
    ("kind", "fields", "scales"),
    [
        ("int8_dynamic", {"scale": "token"}, "one a token"),
        ("int8_static", {"observer": "minmax"}, "one a layer, fixed"),
        ("int8_static", {"observer": "mse"}, "one a layer, fixed"),
        ("int8_static", {"observer": "percentile"}, "one a layer, fixed"),
        ("smoothquant", {}, "one a token"),
        ("smoothquant", {"scale": "static"}, "one a layer, fixed"),
    ],
)
def test_every_layer_is_packed_and_the_output_is_near(
    build: Build, name: str, kind: str, fields: dict[str, Any], scales: str
) -> None:
    subject = build(name)
    before = answer(subject)
    switch = read_switch(kind, fields)
    apply_switch(subject, switch)
    effect = read_back(subject, switch)
    assert effect.took_effect
    linears = effect.facts["linear_layers"]
    assert effect.facts["formats"] == f"w8a8 x {linears}", effect.skipped
    assert effect.facts["activation_scales"] == f"{scales} x {linears}"
    assert 8.0 < effect.facts["bits_per_weight"] < 10.5
    assert 0 < off(subject, before) < 0.15


def test_smoothing_mends_what_an_outlier_channel_ruins(build: Build) -> None:
    def spoiled() -> Subject:
        subject = build("llama")
        for layer in subject.model.model.layers:  # a channel 100 times as large going in, and read as much less
            layer.input_layernorm.weight.data[3] *= 100
            for reader in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                reader.weight.data[:, 3] /= 100
        return subject

    def error(fields: dict[str, Any], kind: str) -> float:
        subject = spoiled()
        before = answer(subject)
        apply_switch(subject, read_switch(kind, fields))
        return off(subject, before)

    assert error({}, "smoothquant") < 0.5 * error({"scale": "token"}, "int8_dynamic")


def test_a_calibration_is_kept_for_the_same_model_text_and_switch(build: Build, tmp_path: Path) -> None:
    def run(**changes: Any) -> str:
        subject = build("llama", **changes)
        subject.shelf = tmp_path
        switch = read_switch("int8_static", {})
        apply_switch(subject, switch)
        return str(read_back(subject, switch).facts["calibration_from"])

    assert run() == "this run"
    assert run() == "an earlier run"
    assert run(intermediate_size=96) == "this run"
    assert len(list(tmp_path.glob("int8_static-*.safetensors"))) == 2


def test_a_fingerprint_tells_models_apart(build: Build) -> None:
    one, same, other = build("llama"), build("llama"), build("llama")
    other.model.model.layers[1].mlp.up_proj.weight.data[0, 0] += 1
    assert fingerprint(one.model) == fingerprint(same.model)
    assert fingerprint(one.model) != fingerprint(other.model)


@pytest.mark.parametrize("kind", ["int8_static", "smoothquant"])
def test_a_text_that_is_too_short_is_refused(build: Build, kind: str) -> None:
    subject = build("llama")
    subject.read_text = None  # 64 tokens are left
    with pytest.raises(RecipeError, match="at least 256 tokens") as error:
        apply_switch(subject, read_switch(kind, {}))
    assert error.value.field == f"switches.{kind}.text"


def test_a_text_that_the_model_does_not_know_is_refused(build: Build) -> None:
    subject = build("llama")
    subject.model.model.norm.weight.data.mul_(4)  # sure of what it says
    with torch.inference_mode():  # its own text is what it says itself, so that it knows it
        ids = [1]
        for _ in range(300):
            ids.append(int(subject.model(input_ids=torch.tensor([ids[-64:]])).logits[0, -1].argmax()))
    subject.sample_ids = ids
    foreign = torch.randint(1, 256, (400,), generator=torch.Generator().manual_seed(9)).tolist()
    subject.read_text = lambda file, tokens: CalibrationText(foreign, f"file {file}")
    with pytest.raises(RecipeError, match="nats a token"):
        apply_switch(subject, read_switch("int8_static", {"text": "other.txt"}))


@pytest.mark.parametrize("kind", ["int8_static", "smoothquant"])
def test_weights_that_are_no_numbers_are_refused(build: Build, kind: str) -> None:
    subject = build("llama")
    subject.model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(RecipeError, match=r"layers\.1\.mlp\.up_proj holds NaN"):
        apply_switch(subject, read_switch(kind, {}))


def test_a_layer_whose_input_never_changes_is_left_with_the_reason(build: Build) -> None:
    subject = build("llama")
    subject.model.model.layers[0].mlp.up_proj.weight.data.zero_()  # so that down reads zeros only
    switch = read_switch("int8_static", {})
    apply_switch(subject, switch)
    effect = read_back(subject, switch)
    [left] = [one for one in effect.skipped if "down_proj" in one.layer]
    assert "never changed" in left.reason


def test_a_gpu_is_refused_beforehand(build: Build) -> None:
    facts = replace(build("llama").facts, devices=("cuda", "cpu"))
    assert "CPU only" in str(SmoothQuant().refuse(facts))
