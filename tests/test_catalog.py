"""Finding models, their facts, and a card for each way in which one can be bad."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import catalog, hub
from backend.catalog import menu, model_facts, read_config, resolve
from backend.ggufheader import read_gguf
from backend.recipe.base import RecipeError
from backend.shapes import SHAPES


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(name: str | Path, trust: bool = False) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        model_facts(resolve(str(name)), trust)
    assert caught.value.field == "model"
    assert caught.value.remedy
    return caught.value


def test_facts_of_a_folder_come_from_config_and_headers(tiny_folder: Path) -> None:
    from safetensors.numpy import load_file

    facts = model_facts(resolve(str(tiny_folder)))
    held = sum(array.size for array in load_file(tiny_folder / "model.safetensors").values())
    assert (facts.layers, facts.hidden, facts.heads, facts.kv_heads, facts.head_dim) == (2, 64, 4, 4, 16)
    assert facts.parameters == held
    assert facts.tied
    assert facts.embedding_parameters == facts.vocab * 64
    assert not facts.random_weights
    assert facts.devices[-1] == "cpu"


def test_sharded_weights_are_counted_over_all_files(copy: Path) -> None:
    from transformers import AutoModelForCausalLM

    whole = model_facts(resolve(str(copy)))
    model = AutoModelForCausalLM.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="100KB")
    assert (copy / "model.safetensors.index.json").exists()
    assert model_facts(resolve(str(copy))).parameters == whole.parameters
    next(copy.glob("model-00001-*")).unlink()
    assert "every file that the index names" in refusal(copy).allowed


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_counting_a_shape_agrees_with_transformers(shape: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    ref = resolve(f"shape:{shape}")
    fields = read_config(ref)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    facts = model_facts(ref)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.random_weights


def test_a_shape_may_be_any_config() -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    facts = model_facts(resolve("shape:" + json.dumps(config | {"vocab_size": 99, "max_position_embeddings": 8})))
    assert (facts.ffn, facts.kv_heads, facts.vocab, facts.context) == (256, 2, 99, 8)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("shape:llama-2t", "one of the shapes"),
        ("shape:{broken", "config in JSON"),
        ('shape:{"hidden_size": 8}', "model_type"),
        ('shape:{"model_type": "llama", "hidden_size": "big"}', "hidden_size"),
    ],
)
def test_a_bad_shape_is_refused(name: str, part: str) -> None:
    assert part in refusal(name).allowed


def test_sliding_layers_of_a_config_without_layer_types(copy: Path) -> None:
    edit_config(copy, model_type="gemma3_text", sliding_window=16, layer_types=None, num_hidden_layers=2)
    assert model_facts(resolve(str(copy))).sliding_layers == 2
    edit_config(copy, sliding_window_pattern=2)
    assert model_facts(resolve(str(copy))).sliding_layers == 1
    edit_config(copy, model_type="qwen2", use_sliding_window=False)
    assert model_facts(resolve(str(copy))).sliding_window is None


def test_unknown_names_get_a_suggestion() -> None:
    assert refusal("storyteler").remedy == "Did you mean storyteller?"
    assert "folder" in refusal("no such thing").allowed
    assert refusal("/no/such/folder").value == "/no/such/folder"


def test_gemma_before_it_is_fetched_says_how(home: Path) -> None:
    assert "backend.gemma" in refusal("gemma").remedy
    assert ("gemma", False) in [(name, available) for name, _, available in menu()]
    assert not (home / "models").exists()


def test_shipped_models_are_found_by_name(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalog, "MODELS", tmp_path)
    assert "make models" in refusal("storyteller").remedy
    shutil.copytree(tiny_folder, tmp_path / "storyteller")
    ref = resolve("storyteller")
    assert (ref.kind, model_facts(ref).name) == ("shipped", "storyteller")
    assert ("storyteller", True) in [(name, available) for name, _, available in menu()]


def test_folder_without_config(tmp_path: Path) -> None:
    assert "config.json" in refusal(tmp_path).allowed


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": 3}'])
def test_config_that_is_none(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    assert "config.json" in refusal(copy).value


def test_pickled_weights_only(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "*.safetensors" in refusal(copy).allowed
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04")
    error = refusal(copy)
    assert "pytorch_model.bin" in error.value
    assert "safetensors" in error.remedy


@pytest.mark.parametrize("keep", [4, 400, -1])
def test_truncated_safetensors(copy: Path, keep: int) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "whole safetensors" in refusal(copy).allowed


def test_safetensors_with_a_header_of_nonsense(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(struct.pack("<Q", 20) + b"x" * 200)
    assert "header" in refusal(copy).remedy


@pytest.mark.parametrize(
    "changes",
    [{"vocab_size": 1024}, {"num_attention_heads": 8}, {"intermediate_size": 256}, {"num_hidden_layers": 3}],
)
def test_shapes_that_do_not_match_the_config(copy: Path, changes: dict[str, int]) -> None:
    edit_config(copy, **changes)
    if "num_attention_heads" in changes:
        edit_config(copy, head_dim=16)
    assert "as config.json says" in refusal(copy).allowed


def test_remote_code_is_refused_until_it_is_allowed(copy: Path) -> None:
    edit_config(copy, auto_map={"AutoModelForCausalLM": "code.Model"})
    assert "trust_remote_code" in refusal(copy).remedy
    assert model_facts(resolve(str(copy)), trust_remote_code=True).layers == 2


def write_gguf(file: Path) -> Path:
    """A whole GGUF file of a llama with one layer, its vocabulary long enough to be passed over."""
    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_token_list([f"token {number}" for number in range(2000)])
    writer.add_token_types([1] * 2000)
    writer.add_tensor("token_embd.weight", np.zeros((2000, 32), np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((32, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_gguf_facts_and_header_agree_with_the_library(tmp_path: Path) -> None:
    import gguf

    file = write_gguf(tmp_path / "model.gguf")
    header, reader = read_gguf(file), gguf.GGUFReader(file)
    assert header.shapes == {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    assert header.fields["tokenizer.ggml.tokens"] == 2000
    facts = model_facts(resolve(str(file)))
    assert (facts.layers, facts.kv_heads, facts.vocab, facts.context, facts.tied) == (1, 2, 2000, 128, True)
    assert facts.parameters == 2000 * 32 + 32 * 32


@pytest.mark.parametrize("share", [0.0, 0.0002, 0.02, 0.5, 0.999])
def test_gguf_cut_short(tmp_path: Path, share: float) -> None:
    file = write_gguf(tmp_path / "model.gguf")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    assert "GGUF file" in refusal(file).allowed


def test_gguf_missing() -> None:
    assert "existing GGUF" in refusal("/nowhere/model.gguf").allowed


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Hub at a port of this machine where nobody listens, and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("no_hub")
def test_hub_unreachable_says_so_soon() -> None:
    began = time.monotonic()
    error = refusal("some-org/some-model")
    assert time.monotonic() - began < 10
    assert "local folder" in error.remedy
    with pytest.raises(RecipeError, match="Hub"):
        hub.snapshot(resolve("some-org/some-model"))


def test_the_catalog_brings_no_torch() -> None:
    code = "import backend.catalog, backend.forecast, backend.texts, backend.gemma, sys; print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(catalog.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"


@pytest.mark.real
def test_gemma_is_what_it_is_known_to_be(gemma_home: Path) -> None:
    facts = model_facts(resolve("gemma"))
    assert round(facts.parameters / 1e6, 1) == 268.1
    assert (facts.layers, facts.heads, facts.kv_heads, facts.head_dim, facts.vocab) == (18, 4, 1, 256, 262_144)
    assert (facts.sliding_window, facts.sliding_layers, facts.tied) == (512, 15, True)
