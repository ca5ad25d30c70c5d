"""Loading every kind of model, and a card for each that cannot be loaded."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from backend.catalog import resolve
from backend.engine.convert import convert, main
from backend.engine.load import base_dtype, best_device, load
from backend.engine.text import encode
from backend.recipe.base import RecipeError
from backend.techniques.base import Subject

TINY_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "max_position_embeddings": 128,
}


def load_name(name: str | Path, **options: Any) -> Subject:
    return load(resolve(str(name)), device="cpu", **options)


def logits(model: nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]  # (T, V)


def test_a_folder_loads_as_transformers_loads_it(tiny_folder: Path) -> None:
    told: list[float] = []
    subject = load_name(tiny_folder, progress=lambda share, text: told.append(share))
    ids = encode(subject, "Once there was a lantern in the harbor.")
    expected = logits(AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval(), ids)
    assert torch.equal(logits(subject.model, ids), expected)
    assert told[0] == 0.0
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_what_is_loaded_is_ready_for_inference(tiny_folder: Path) -> None:
    model = load_name(tiny_folder).model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "sdpa"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_weights_lie_in_memory_of_their_own(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    subject = load_name(folder)
    for parameter in subject.model.parameters():
        assert parameter.is_contiguous()
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
    gc.collect()
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(folder) not in maps.read_text()


def test_a_dtype_may_be_asked_for(tiny_folder: Path) -> None:
    assert {p.dtype for p in load_name(tiny_folder, dtype=torch.bfloat16).model.parameters()} == {torch.bfloat16}


def test_the_baseline_is_fp32_but_on_a_gpu() -> None:
    assert base_dtype(torch.device("cpu")) == torch.float32
    assert base_dtype(torch.device("cuda")) == torch.bfloat16


def test_a_device_that_is_not_there_is_refused() -> None:
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(RecipeError, match="cpu") as caught:
        best_device(missing)
    assert caught.value.field == "switches.device"
    assert best_device().type in ("cpu", "cuda", "mps")


def test_a_second_model_loads_in_the_same_place(tiny_folder: Path, tiny_draft_folder: Path) -> None:
    subject = load_name(tiny_folder, dtype=torch.bfloat16)
    assert subject.load_other is not None
    other = subject.load_other(str(tiny_draft_folder))
    assert other.facts.layers == 1
    assert other.device == subject.device
    assert next(other.model.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gemma3_text"])
def test_a_shape_has_weights_as_if_it_were_trained_from_scratch(kind: str) -> None:
    subject = load_name("shape:" + json.dumps({"model_type": kind, **TINY_SHAPE}))
    fresh = AutoModelForCausalLM.from_config(subject.model.config)
    assert subject.tokenizer is None
    assert subject.facts.random_weights
    for (name, ours), (_, theirs) in zip(subject.model.named_buffers(), fresh.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    for (name, ours), (_, theirs) in zip(subject.model.named_parameters(), fresh.named_parameters(), strict=True):
        if ours.ndim < 2:
            assert torch.equal(ours, theirs), name
        else:
            assert ours.std().item() == pytest.approx(0.02, rel=0.1), name
    assert subject.facts.parameters == sum(p.numel() for p in subject.model.parameters())
    assert logits(subject.model, encode(subject, "abc")).isfinite().all()


def test_a_shape_is_the_same_each_time() -> None:
    name = "shape:" + json.dumps({"model_type": "llama", **TINY_SHAPE})
    assert torch.equal(logits(load_name(name).model, [1, 2, 3]), logits(load_name(name).model, [1, 2, 3]))


@pytest.mark.parametrize(
    "changes", [{"model_type": "no-such-model"}, {"model_type": "vit"}, {"num_key_value_heads": 3}]
)
def test_a_shape_that_cannot_be_built_is_refused(changes: dict[str, Any]) -> None:
    name = "shape:" + json.dumps({"model_type": "llama", **TINY_SHAPE, **changes})
    with pytest.raises(RecipeError) as caught:
        load_name(name)
    assert caught.value.field == "model"


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(folder: Path, **options: Any) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_name(folder, **options)
    assert caught.value.field == "model"
    return caught.value


def test_an_architecture_that_transformers_does_not_know(copy: Path) -> None:
    edit_config(copy, model_type="brandnew9", architectures=["BrandNew"])
    error = refusal(copy)
    assert "transformers" in error.allowed
    assert "brandnew9" in error.remedy


def test_remote_code_never_runs_unasked(copy: Path, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(proof)!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    edit_config(copy, model_type="evil", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    assert "trust_remote_code" in refusal(copy).remedy
    assert not proof.exists()


def test_weights_of_too_few_layers_are_refused(copy: Path) -> None:
    from safetensors.torch import save_file

    weights = load_file(copy / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    error = refusal(copy)
    assert "mlp.up_proj" in error.value
    assert "every layer" in error.allowed


def test_a_folder_without_a_tokenizer(copy: Path) -> None:
    for file in copy.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in refusal(copy).allowed


def test_damage_that_headers_show_is_refused_before_anything_is_read(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    told: list[str] = []
    assert "whole safetensors" in refusal(copy, progress=lambda share, text: told.append(text)).allowed
    assert told == ["Reading the config"]


@pytest.fixture
def gguf_file(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model's first tensors as a GGUF file that transformers can read, its tokenizer a byte-level BPE."""
    config = json.loads((tiny_folder / "config.json").read_text())
    tokenizer = json.loads((tiny_folder / "tokenizer.json").read_text())
    vocab = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    vocab += [f"<pad{number}>" for number in range(config["vocab_size"] - len(vocab))]
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(len(vocab))
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocab)
    writer.add_token_types([3, *([1] * (len(vocab) - 1))])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in load_file(tiny_folder / "model.safetensors").items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp keeps these rows interleaved
            tensor = tensor.view(4, 2, 8, 64).transpose(1, 2).reshape(64, 64)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "tiny.gguf"


def test_a_gguf_file_loads_and_converts_to_the_same_model(gguf_file: Path, tiny_folder: Path, tmp_path: Path) -> None:
    ids = [5, 300, 17, 42]
    expected = logits(load_name(tiny_folder).model, ids)
    assert torch.allclose(logits(load_name(gguf_file).model, ids), expected, atol=1e-4)
    convert(gguf_file, tmp_path / "out")
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    again = load_name(tmp_path / "out")
    assert torch.allclose(logits(again.model, ids), expected, atol=1e-4)
    assert again.tokenizer is not None


def test_the_conversion_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    monkeypatch.setattr(sys, "argv", ["convert", str(tmp_path / "half.gguf"), str(tmp_path / "out")])
    assert main() == 2
    said = capsys.readouterr()
    assert "whole GGUF file" in said.err
    assert said.out == ""


def test_importing_says_nothing() -> None:
    command = [sys.executable, "-c", "import backend.executors.preload, torchao"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert (done.stdout, done.stderr) == ("", "")


def test_loading_says_nothing(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_name(tiny_folder)
    assert capfd.readouterr() == ("", "")
