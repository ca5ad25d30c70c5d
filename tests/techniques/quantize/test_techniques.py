"""Every quantization on tiny models of every shape: what the receipt says is what is there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Switch, read_switch
from backend.techniques.base import Effect, Subject, decoder_layers
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.registry import apply_switch, read_back

Run = Callable[[Subject], Tensor]

# switch, fields, format in the receipt, most bits a weight, largest error of the logits on a random model
CASES: list[tuple[str, dict[str, Any], str, float, float]] = [
    ("int8_weight_only", {}, "int8", 9.0, 0.03),
    ("int8_dynamic", {}, "qint8", 9.0, 0.25),
    ("int8_dynamic", {"per_channel": True}, "qint8", 10.0, 0.25),
    ("int4_weight_only", {"group_size": 32, "head": "int4"}, "int4", 5.01, 0.5),
    ("int4_weight_only", {"group_size": 64, "head": "int4"}, "int4", 4.51, 0.6),
    ("bnb_4bit", {"format": "nf4"}, "nf4", 6.0, 0.5),
    ("bnb_4bit", {"format": "fp4"}, "fp4", 6.0, 0.6),
    ("bnb_int8", {}, "int8", 9.0, 0.1),
]
IDS = [f"{kind}-{'-'.join(map(str, fields.values()))}" for kind, fields, *_ in CASES]


def change(subject: Subject, kind: str, **fields: Any) -> Effect:
    switch = read_switch(kind, fields)
    apply_switch(subject, switch)
    return read_back(subject, switch)


def error(got: Tensor, want: Tensor) -> float:
    return ((got.float() - want).norm() / want.norm()).item()


def cut_neurons(subject: Subject, keep: int) -> None:
    """What a pruner leaves: feed-forward layers of an odd width."""
    for layer in decoder_layers(subject.model):
        mlp: Any = layer.mlp
        for linear in (mlp.gate_proj, mlp.up_proj):
            linear.weight = nn.Parameter(linear.weight.detach()[:keep].clone())
            linear.out_features = keep
        mlp.down_proj.weight = nn.Parameter(mlp.down_proj.weight.detach()[:, :keep].clone())
        mlp.down_proj.in_features = keep


@pytest.mark.parametrize(("kind", "fields", "word", "bits", "largest"), CASES, ids=IDS)
def test_layers_change_and_the_receipt_counts_them(
    any_subject: Subject, logits: Run, kind: str, fields: dict[str, Any], word: str, bits: float, largest: float
) -> None:
    before, want = weight_bytes(any_subject.model), logits(any_subject)
    effect = change(any_subject, kind, **fields)
    assert effect.took_effect
    assert effect.facts["linear_layers"] == 3 * 7 + 1
    # bitsandbytes leaves the head; the 16 rows of Gemma's one key-value head do not fit every 4-bit kernel.
    in_float = sum(type(module) is nn.Linear for module in any_subject.model.modules())
    assert in_float <= (7 if kind == "bnb_4bit" else 1 if kind == "bnb_int8" else 0)
    assert f"{word} x {22 - in_float}" in effect.facts["formats"]
    assert effect.facts["quantized_layers"] == 22 - in_float
    assert effect.facts["bits_per_weight"] <= bits
    assert effect.facts["weight_bytes_before"] == before
    assert effect.facts["weight_bytes"] == weight_bytes(any_subject.model) < before
    assert 0 < error(logits(any_subject), want) < largest


@pytest.mark.parametrize(("kind", "fields", "word", "bits", "largest"), CASES, ids=IDS)
def test_a_technique_that_did_nothing_is_found_out(
    tiny_llama: Subject, kind: str, fields: dict[str, Any], word: str, bits: float, largest: float
) -> None:
    effect = read_back(tiny_llama, read_switch(kind, fields))
    assert not effect.took_effect
    assert effect.summary == "none of 22 linear layers was changed"
    assert any("no reason was recorded" in skipped.reason for skipped in effect.skipped)


def test_another_quantization_is_not_taken_for_the_one_asked_for(tiny_llama: Subject) -> None:
    apply_switch(tiny_llama, read_switch("int8_weight_only", {}))
    assert not read_back(tiny_llama, read_switch("int4_weight_only", {})).took_effect
    assert not read_back(tiny_llama, read_switch("int8_dynamic", {})).took_effect
    assert not read_back(tiny_llama, read_switch("bnb_int8", {})).took_effect


@pytest.mark.parametrize("kind", ["int8_weight_only", "int8_dynamic", "int4_weight_only"])
def test_a_tied_head_leaves_the_embedding_alone(any_subject: Subject, kind: str) -> None:
    model = any_subject.model
    embedding = model.get_input_embeddings().weight
    before, pointer = embedding.detach().clone(), embedding.data_ptr()
    assert model.get_output_embeddings().weight is embedding
    effect = change(any_subject, kind)
    assert model.get_input_embeddings().weight is embedding
    assert torch.equal(embedding, before)
    assert embedding.data_ptr() == pointer
    assert model.config.tie_word_embeddings is False
    assert effect.facts["head"] in ("int8", "qint8")
    said = [s.reason for s in effect.skipped if s.layer.endswith("embed_tokens")]
    assert said == [f"looked up, not multiplied: stays float32 ({before.numel() * 4:,} bytes)"]


@pytest.mark.parametrize("kind", ["int8_weight_only", "int4_weight_only"])
def test_a_kept_head_stays_tied_and_is_named(tiny_llama: Subject, kind: str) -> None:
    effect = change(tiny_llama, kind, head="keep")
    model = tiny_llama.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.tie_word_embeddings is True
    assert effect.facts["head"] == "float32"
    assert ("lm_head", "the output head is kept, as asked") in [(s.layer, s.reason) for s in effect.skipped]


def test_int4_with_an_int8_head_names_both(tiny_llama: Subject) -> None:
    effect = change(tiny_llama, "int4_weight_only", head="int8")
    assert effect.summary == "21 of 22 linear layers int4, head int8"


@pytest.mark.parametrize("kind", ["int8_weight_only", "int8_dynamic", "int4_weight_only", "bnb_int8"])
def test_odd_widths_that_pruning_leaves_are_quantized_too(tiny_llama: Subject, logits: Run, kind: str) -> None:
    cut_neurons(tiny_llama, keep=101)
    want = logits(tiny_llama)
    effect = change(tiny_llama, kind)
    assert not [s for s in effect.skipped if "mlp" in s.layer]
    assert error(logits(tiny_llama), want) < 0.5
    if kind == "int4_weight_only":
        assert effect.facts["layers_with_padded_inputs"] == 3


def test_int4_leaves_a_layer_narrower_than_a_group(tiny_llama: Subject, logits: Run) -> None:
    cut_neurons(tiny_llama, keep=24)
    effect = change(tiny_llama, "int4_weight_only")
    found = {s.layer: s.reason for s in effect.skipped}
    assert found["model.layers.*.mlp.down_proj (3)"] == "24 inputs do not fill one group of 32"
    assert torch.isfinite(logits(tiny_llama)).all()


def test_four_bits_leave_a_width_that_their_kernel_refuses(tiny_llama: Subject, logits: Run) -> None:
    cut_neurons(tiny_llama, keep=101)
    want = logits(tiny_llama)
    effect = change(tiny_llama, "bnb_4bit")
    refused = {s.layer: s.reason for s in effect.skipped if "refuses" in s.reason}
    left = [name for name, m in tiny_llama.model.named_modules() if type(m) is nn.Linear and name != "lm_head"]
    # Which widths fit depends on the processor; what the receipt names must be what is there.
    assert sum(int(name.split("(")[1].rstrip(")")) for name in refused) == len(left)
    assert all("101" in reason for reason in refused.values())
    assert effect.took_effect
    assert error(logits(tiny_llama), want) < 0.5


def test_no_layer_that_fits_is_the_users_mistake(build: Callable[..., Subject]) -> None:
    subject = build("llama", intermediate_size=96)  # no layer has 128 inputs
    with pytest.raises(RecipeError) as caught:
        change(subject, "int4_weight_only", group_size=128, head="keep")
    assert caught.value.field == "switches.int4_weight_only"
    assert "do not fill one group of 128" in caught.value.allowed


@pytest.mark.parametrize("kind", ["int8_weight_only", "int8_dynamic", "int4_weight_only", "bnb_int8"])
def test_conv1d_of_gpt2_becomes_a_linear_layer_first(kind: str) -> None:
    torch.manual_seed(8)
    config = GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=4, n_positions=64, initializer_range=0.1)
    model = GPT2LMHeadModel(config).eval()
    facts = ModelFacts("tiny-gpt2", "gpt2", 2, 64, 256, 4, 4, 16, 128, 64, 0, 0)
    subject = Subject(model, None, facts, torch.device("cpu"))
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        want = model(ids).logits
        effect = change(subject, kind)
        got = model(ids).logits
    assert effect.facts["conv1d_unfolded"] == 8
    assert effect.facts["linear_layers"] == 9
    assert "Conv1D" not in effect.facts["classes"]
    assert error(got, want) < 0.25


def test_dynamic_int8_per_channel_reads_its_scales_from_the_weight(tiny_llama: Subject) -> None:
    assert change(tiny_llama, "int8_dynamic", per_channel=True).facts["weight_scales"] == "one per output channel"


def test_dynamic_int8_warns_of_nothing_and_leaves_the_engine_as_it_was(tiny_llama: Subject) -> None:
    engine = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        change(tiny_llama, "int8_dynamic")
    assert torch.backends.quantized.engine == engine


def test_llm_int8_says_nothing_while_it_runs(
    tiny_llama: Subject, logits: Run, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    effect = change(tiny_llama, "bnb_int8", threshold=5.0)
    logits(tiny_llama)
    assert effect.facts["threshold"] == "5"
    assert "MatMul8bitLt" not in caplog.text + "".join(capfd.readouterr())


def test_double_quantization_is_read_from_the_live_scales(tiny_llama: Subject) -> None:
    effect = change(tiny_llama, "bnb_4bit", double_quant=True)
    states = [p.quant_state for p in tiny_llama.model.parameters() if hasattr(p, "quant_state")]
    assert effect.facts["double_quantized_layers"] == sum(state.nested for state in states)
    assert ("not quantized" in effect.summary) == (effect.facts["double_quantized_layers"] == 0)


@pytest.mark.parametrize("kind", ["int8_weight_only", "int4_weight_only"])
def test_a_device_with_no_kernel_is_refused(tiny_llama: Subject, kind: str) -> None:
    tiny_llama.device = torch.device("mps")
    with pytest.raises(RecipeError, match="a CPU or a CUDA GPU"):
        apply_switch(tiny_llama, read_switch(kind, {}))


def test_progress_names_every_layer(tiny_llama: Subject) -> None:
    heard: list[tuple[float, str]] = []
    tiny_llama.progress = lambda share, text: heard.append((share, text))
    switch: Switch = read_switch("int8_weight_only", {})
    apply_switch(tiny_llama, switch)
    assert len(heard) == 22
    assert [share for share, _ in heard] == sorted(share for share, _ in heard)
    assert heard[-1][1] == "Quantizing lm_head"


def test_a_group_that_does_not_divide_the_hidden_size_is_refused_before_loading(build: Callable[..., Subject]) -> None:
    facts = replace(build("llama").facts, hidden=96)
    assert read_switch("int4_weight_only", {"group_size": 32}).refuse(facts) is None
    reason = read_switch("int4_weight_only", {"group_size": 64}).refuse(facts)
    assert reason == "a group size of 32: 64 does not divide the hidden size 96"
