"""A model as a GGUF file: read back by transformers, and run by llama.cpp where llama-cpp-python is installed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from backend.catalog import model_facts, resolve
from backend.engine.gguf import write
from backend.engine.gguf.architecture import architecture_of
from backend.engine.gguf.write import write_gguf
from backend.engine.load import load, read_gguf_model
from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.layers import remove
from backend.techniques.registry import apply_switch
from benchmarks._llamacpp import LlamaCpp

TEXT = "Once there was a lantern in the harbor. It's 1999 \t and\n\n Ana said: 'çüß 日本 🙂'  twice."


def subject_of(folder: Path, switches: dict[str, Any] | None = None) -> Subject:
    subject = load(resolve(str(folder)), device="cpu")
    subject.sample_ids = list(range(1, 65))
    for switch in Recipe.read({"switches": switches or {}}).pipeline:
        apply_switch(subject, switch)
    return subject


def logits(model: Any, length: int = 40) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.arange(1, length + 1)[None], use_cache=False).logits[0]


def without_the_first(folder: Path) -> Subject:
    """A Gemma whose fifth layer sees everything, and not the sixth."""
    subject = subject_of(folder)
    remove(subject.model, decoder_layers(subject.model), [1, 2, 3, 4, 5, 6])
    return subject


def written(subject: Subject, file: Path, kind: str = "f32") -> Path:
    told = write_gguf(subject, file, kind, lambda share, text: None)
    assert kind in told[0]
    return file


def test_transformers_reads_back_what_was_written(original: Path, tmp_path: Path) -> None:
    subject = subject_of(original)
    file = written(subject, tmp_path / "model.gguf")
    model, tokenizer = read_gguf_model(file, torch.float32)
    if subject.facts.architecture == "llama":  # of a Gemma its reader takes the scale of queries for granted
        torch.testing.assert_close(logits(model), logits(subject.model), rtol=1e-4, atol=1e-4)
    back = dict(model.named_parameters())
    for name, value in subject.model.named_parameters():
        torch.testing.assert_close(back[name], value, rtol=0, atol=1e-6, msg=name)
    assert tokenizer is not None
    assert subject.tokenizer is not None
    assert tokenizer(TEXT)["input_ids"] == subject.tokenizer(TEXT)["input_ids"]


def test_the_catalog_knows_it_before_it_is_loaded(original: Path, tmp_path: Path) -> None:
    subject = subject_of(original)
    facts = model_facts(resolve(str(written(subject, tmp_path / "model.gguf", "f16"))))
    names = ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab", "context", "parameters", "tied")
    assert {name: getattr(facts, name) for name in names} == {name: getattr(subject.facts, name) for name in names}


@pytest.mark.parametrize(("kind", "bound"), [("f16", 5e-4), ("q8_0", 0.01)])
def test_smaller_types_lose_little(original: Path, tmp_path: Path, kind: str, bound: float) -> None:
    subject = subject_of(original)
    model, _ = read_gguf_model(written(subject, tmp_path / "model.gguf", kind), torch.float32)
    back = dict(model.named_parameters())
    for name, value in subject.model.named_parameters():
        assert (back[name] - value).norm() <= bound * value.norm(), name


def test_what_fits_no_block_of_q8_0_is_f16_and_said(tiny_folder: Path, tmp_path: Path) -> None:
    subject = subject_of(tiny_folder, {"prune_neurons": {"ratio": 0.3}})
    told = write_gguf(subject, tmp_path / "model.gguf", "q8_0", lambda share, text: None)
    width = subject.model.config.intermediate_size
    types = {t.name: t.tensor_type for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert types["blk.0.ffn_up.weight"] == gguf.GGMLQuantizationType.Q8_0
    assert types["blk.0.attn_norm.weight"] == gguf.GGMLQuantizationType.F32
    assert (types["blk.0.ffn_down.weight"] == gguf.GGMLQuantizationType.F16) == bool(width % 32)
    assert any("ffn_down" in line for line in told) == bool(width % 32)


@pytest.mark.parametrize(
    "switches",
    [
        {"int8_weight_only": {}},
        {"int4_weight_only": {"group_size": 32, "head": "int4"}},
        {"int8_dynamic": {}},
        {"cast": {"dtype": "bf16"}},
        {"kv_heads": {"count": 2}, "int8_weight_only": {"head": "keep"}},
    ],
)
def test_a_changed_model_is_written_as_it_is(tiny_folder: Path, tmp_path: Path, switches: dict[str, Any]) -> None:
    subject = subject_of(tiny_folder, switches)
    model, _ = read_gguf_model(written(subject, tmp_path / "model.gguf"), torch.float32)
    before = logits(subject.model).float()
    bound = 0.25 if "int8_dynamic" in switches else 0.02  # activations are int8 there, and bf16 elsewhere
    assert (logits(model) - before).norm() / before.norm() < bound


def test_a_gemma_whose_layers_slide_in_another_order_says_so(gemma_like: Path, tmp_path: Path) -> None:
    subject = without_the_first(gemma_like)
    reader = gguf.GGUFReader(written(subject, tmp_path / "model.gguf"))
    field = reader.fields["gemma3.attention.sliding_window_pattern"]
    slides = [kind == "sliding_attention" for kind in subject.model.config.layer_types]
    assert [bool(part) for part in field.contents()] == slides
    assert (
        "gemma3.attention.sliding_window_pattern"
        not in gguf.GGUFReader(written(subject_of(gemma_like), tmp_path / "whole.gguf")).fields
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "gelu"}, "silu"),
        ({"model_type": "gpt2"}, "gemma3_text"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "plain rotary"),
    ],
)
def test_what_llama_cpp_would_compute_in_another_way_is_refused(
    tiny_folder: Path, changes: dict[str, Any], said: str
) -> None:
    config = subject_of(tiny_folder).model.config
    fields = {"model_type": config.model_type, "hidden_act": config.hidden_act, "rope_parameters": {}} | changes
    with pytest.raises(RecipeError) as caught:
        architecture_of(type("Config", (), fields))
    assert caught.value.field == "gguf"
    assert said in caught.value.allowed


def test_a_file_that_is_there_and_a_full_disk(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of(tiny_folder)
    (tmp_path / "mine.gguf").write_text("mine")
    with pytest.raises(RecipeError, match="not there yet"):
        written(subject, tmp_path / "mine.gguf")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(RecipeError, match="No space left"):
        written(subject, tmp_path / "new.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.gguf"]


def test_numbers_are_encoded_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.randn(100, 64, generator=torch.Generator().manual_seed(1))
    whole = write._encoded(numbers, gguf.GGMLQuantizationType.Q8_0)
    monkeypatch.setattr(write, "ROWS_AT_A_TIME", 7)
    assert np.array_equal(write._encoded(numbers, gguf.GGMLQuantizationType.Q8_0), whole)


# llama.cpp itself


def there(file: Path) -> LlamaCpp:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed", exc_type=ImportError)
    return LlamaCpp(file)


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    with torch.inference_mode():
        for _ in range(count):
            ids = [*ids, int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
    return ids[-count:]


def test_llama_cpp_computes_the_same(original: Path, tmp_path: Path) -> None:
    subject = subject_of(original)
    other = there(written(subject, tmp_path / "model.gguf"))
    ids = other.tokens(TEXT)
    assert subject.tokenizer is not None
    assert ids == subject.tokenizer(TEXT)["input_ids"]
    with torch.inference_mode():
        here = subject.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    found = torch.from_numpy(other.logits(ids))
    assert (found - here).norm() / here.norm() < 2e-3


def test_llama_cpp_slides_where_a_shortened_gemma_slides(gemma_like: Path, tmp_path: Path) -> None:
    subject = without_the_first(gemma_like)
    other = there(written(subject, tmp_path / "model.gguf"))
    ids = list(range(1, 61))  # more than the window of 16
    found = torch.from_numpy(other.logits(ids))
    here = logits(subject.model, 60)[-1]
    assert (found - here).norm() / here.norm() < 2e-3


@pytest.mark.real
@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_llama_cpp_continues_as_gemma_does(gemma_folder: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed", exc_type=ImportError)
    subject = subject_of(gemma_folder)
    other = there(written(subject, tmp_path / "gemma.gguf", kind))
    assert subject.tokenizer is not None
    for text in (TEXT, "  def f(x):\n\treturn x", "Größe, naïve, Ελλάδα, <b>bold</b>"):
        assert other.tokens(text) == subject.tokenizer(text)["input_ids"]
    ids = other.tokens("Once upon a time")
    if kind == "f32":
        assert other.greedy(ids, 12) == greedy(subject.model, ids, 12)
        return
    with torch.inference_mode():
        here = subject.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(0)
    found = torch.from_numpy(other.logits(ids)).log_softmax(0)
    assert float((here.exp() * (here - found)).sum()) < 0.05  # rounding to 8 bits: nats, and the same first choice
    assert int(found.argmax()) == int(here.argmax())


def test_llama_cpp_continues_as_the_storyteller_does(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed", exc_type=ImportError)
    subject = load(resolve("storyteller"), device="cpu")
    other = there(written(subject, tmp_path / "storyteller.gguf", "q8_0"))
    ids = other.tokens("Once there was a lantern in the harbor.")
    assert other.greedy(ids, 24) == greedy(subject.model, ids, 24)
