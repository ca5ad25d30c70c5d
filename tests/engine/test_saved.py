"""A changed model, saved and loaded again without the original: the same logits, bytes and layers, or a card."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from backend import cli_save
from backend.catalog import SHIPPED, menu, model_facts, resolve
from backend.engine.load import load
from backend.engine.saved import write
from backend.engine.saved.floats import float_matrix
from backend.engine.saved.write import write_saved_model
from backend.fetched import FETCHED
from backend.forecast import forecast_lane, precisions, weights_bytes
from backend.lane import Lane
from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.saved import MARKER, TAKEN, WEIGHTS, own_folder, read_saved
from backend.techniques.base import CalibrationText, Subject
from backend.techniques.quantize.census import layer_format
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.quantize.int4_codes import pack_codes, unpack_codes
from backend.techniques.quantize.layers import linear_like
from backend.techniques.quantize.packed_embedding import PackedEmbedding
from backend.techniques.registry import apply_switch
from backend.texts import examples, held_out_text

INT8 = {"int8_weight_only": {}}
CASES: dict[str, dict[str, Any]] = {
    "unchanged": {},
    "bf16": {"cast": {"dtype": "bf16"}},
    "int8": INT8,
    "int8 but the head": {"int8_weight_only": {"head": "keep"}},
    "int4": {"int4_weight_only": {"group_size": 32, "head": "int4"}},
    "int4, head int8": {"int4_weight_only": {"group_size": 64}},
    "int4 of an odd width": {"int4_weight_only": {"group_size": 64}, "prune_neurons": {"ratio": 0.25}},
    "a split head": {"mixed_precision": {"levels": "0:int4 head:split", "likely": 0.2, "split_group": 32}},
    "dynamic int8": {"int8_dynamic": {}},
    "dynamic int8 by channel": {"int8_dynamic": {"per_channel": True}},
    "int8 by int8, a range a token": {"int8_dynamic": {"scale": "token"}},
    "int8 by int8, fixed ranges": {"int8_static": {"observer": "minmax"}},
    "smoothed": {"smoothquant": {}},
    "GPTQ": {"gptq": {}},
    "NF4": {"bnb_4bit": {"format": "nf4", "double_quant": False}},
    "FP4": {"bnb_4bit": {"format": "fp4", "double_quant": False}},
    "LLM.int8()": {"bnb_int8": {"threshold": 3.0}},
    "one int8 table": {"embedding_table": {}, **INT8},
    "int4 embedding, head int8": {"embedding_table": {"bits": 4}, **INT8},
    "int8 embedding, split head": {
        "embedding_table": {},
        "mixed_precision": {"levels": "0:int4 head:split", "likely": 0.2, "split_group": 32},
    },
    "zeros": {"magnitude": {"ratio": 0.5}},
    "half of the heads": {"prune_heads": {"ratio": 0.5}},
    "a layer fewer, int8": {"drop_layers": {"count": 1}, **INT8},
    "heads that differ by layer": {"prune_heads": {"ratio": 0.0, "remove": "0:1,3 1:0"}},
    "neurons that differ by layer, int8": {"prune_neurons": {"ratio": 0.3, "scope": "global", "by": "random"}, **INT8},
}


def changed(folder: Path, switches: dict[str, Any]) -> tuple[Subject, Recipe]:
    """The folder's model under a recipe, as a lane changes it."""
    subject = load(resolve(str(folder)), device="cpu")
    subject.sample_ids = list(range(1, 65))
    subject.read_text = lambda file, tokens: CalibrationText([1 + n % 64 for n in range(320)], "counting")
    recipe = Recipe.read({"switches": switches})
    for switch in recipe.pipeline:
        if switch.changes_weights:
            apply_switch(subject, switch)
    return subject, recipe


def logits(subject: Subject, length: int) -> torch.Tensor:
    """Logits (T, V): one token a call decodes, many in one call are a prompt."""
    with torch.inference_mode():
        ids = torch.arange(1, length + 1)[None]
        return subject.model(input_ids=ids, use_cache=False).logits[0]


@pytest.fixture
def saved_int8(tiny_folder: Path, tmp_path: Path) -> Path:
    """A saved model that a test may damage."""
    subject, recipe = changed(tiny_folder, INT8)
    write_saved_model(subject, recipe, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_it_computed(original: Path, tmp_path: Path, case: str) -> None:
    subject, recipe = changed(original, CASES[case])
    before = [logits(subject, length) for length in (1, 3, 60)]
    write_saved_model(subject, recipe, tmp_path / "saved")
    again = load(resolve(str(tmp_path / "saved")))
    for length, wanted in zip((1, 3, 60), before, strict=True):
        assert torch.equal(logits(again, length), wanted), length
    formats = {name: layer_format(layer) for name, layer in linear_like(again.model).items()}
    assert formats == {name: layer_format(layer) for name, layer in linear_like(subject.model).items()}
    assert weight_bytes(again.model) == weight_bytes(subject.model)
    assert again.model.generation_config.eos_token_id == subject.model.generation_config.eos_token_id
    assert [file.suffix for file in (tmp_path / "saved").iterdir() if file.stat().st_size > 1e5] == [".safetensors"]
    assert not any(parameter.requires_grad for parameter in again.model.parameters())


@pytest.mark.parametrize("case", CASES)
def test_what_is_known_before_loading_is_true(original: Path, tmp_path: Path, case: str) -> None:
    subject, recipe = changed(original, CASES[case])
    logits(subject, 1)
    write_saved_model(subject, recipe, tmp_path / "saved")
    facts = model_facts(resolve(str(tmp_path / "saved")))
    layers = linear_like(subject.model).values()
    matrices = sum(layer.in_features * layer.out_features for layer in layers)  # type: ignore[operator]
    embedding = subject.model.get_input_embeddings()
    shared = isinstance(embedding, PackedEmbedding) and embedding.is_that_of(subject.model.get_output_embeddings())
    head_apart = not subject.model.config.tie_word_embeddings and not shared
    others = sum(p.numel() for n, p in subject.model.named_parameters() if "norm" in n)
    table = embedding.num_embeddings * embedding.embedding_dim
    assert facts.parameters == matrices + others + (table if head_apart else 0)
    assert facts.tied != head_apart
    predicted, held = weights_bytes(facts, Recipe()), weight_bytes(subject.model)
    assert predicted == pytest.approx(held, rel=0.03)
    assert forecast_lane(facts, Recipe(), 64).loading_bytes > 0
    if facts.held_as:
        assert list(precisions(facts).values()) == [predicted]


def test_a_saved_model_races_and_its_baseline_is_itself(saved_int8: Path, home: Path) -> None:
    race = {"model": str(saved_int8), "prompt": "Once there was", "max_new_tokens": 8, "variants": [{}]}
    told: list[str] = []
    lane = Lane("base", race, lambda share, text: told.append(text))
    assert lane.load()["facts"]["packed"]
    lane.transform()
    seen = lane.warm(ring=None, vocab=0)
    assert "int8" in json.dumps(seen["receipt"])
    assert lane.slice(5.0)["tokens"]["ids"]
    assert any(text.startswith("Packing") for text in told)


def test_its_weights_are_converted_once_and_for_all(saved_int8: Path) -> None:
    facts = model_facts(resolve(str(saved_int8)))
    assert facts.devices == ("cpu",)
    for switches in (INT8, {"prune_neurons": {"ratio": 0.5}}, {"kv_heads": {"count": 2}}):
        with pytest.raises(RecipeError, match="start from the original"):
            Recipe.read({"switches": switches}).check(facts)
    for switches in ({"window_cache": {"window": 64}}, {"prompt_lookup": {}}, {"threads": {"count": 1}}):
        Recipe.read({"switches": switches}).check(facts)


class FloatMatrices(TorchDispatchMode):
    """Remembers the largest float tensor in real memory that an operation wrote."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        real = isinstance(out, torch.Tensor) and not out.is_meta and out.is_floating_point()
        if real and "empty" not in str(func):  # memory that was only reserved is not there yet
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize("case", ["int8", "int4", "dynamic int8"])
def test_no_packed_matrix_is_ever_a_float_on_the_way(tiny_folder: Path, tmp_path: Path, case: str) -> None:
    subject, recipe = changed(tiny_folder, {**CASES[case]})
    write_saved_model(subject, recipe, tmp_path / "saved")
    file = tmp_path / "saved" / WEIGHTS
    floats = {name: t for name, t in load_file(file).items() if t.is_floating_point() and "scale" not in name}
    table = floats.pop("model.embed_tokens.weight")
    assert all(tensor.ndim == 1 for tensor in floats.values())
    with FloatMatrices() as seen:
        load(resolve(str(tmp_path / "saved")))
    assert seen.largest <= table.numel()


def test_a_tied_embedding_is_in_the_file_once(original: Path, tmp_path: Path) -> None:
    subject, recipe = changed(original, {"int8_weight_only": {"head": "keep"}})
    write_saved_model(subject, recipe, tmp_path / "saved")
    with safe_open(tmp_path / "saved" / WEIGHTS, framework="pt") as file:
        assert not any(name.startswith("lm_head") for name in file.keys())  # noqa: SIM118  no dict
    again = load(resolve(str(tmp_path / "saved"))).model
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_a_plain_one_opens_anywhere_and_a_packed_one_nowhere_else(tiny_folder: Path, tmp_path: Path) -> None:
    for name, switches in (("plain", {"prune_neurons": {"ratio": 0.5}}), ("packed", INT8)):
        write_saved_model(*changed(tiny_folder, switches), tmp_path / name)
    _, report = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert not report["missing_keys"]
    with pytest.raises(ValueError, match="quant_method"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "packed")


def test_what_is_no_weight_is_written_down_and_said(tiny_folder: Path, tmp_path: Path) -> None:
    subject, recipe = changed(tiny_folder, {**INT8, "window_cache": {"window": 64}, "threads": {"count": 1}})
    saved = write_saved_model(subject, recipe, tmp_path / "saved")
    assert set(saved.not_weights) == {"window_cache", "threads"}
    assert read_saved(tmp_path / "saved") == saved
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "window_cache" in card
    assert "times smaller than the original in fp32" in card
    assert "int8 weights" in card


def test_a_saved_model_that_is_saved_again_keeps_its_recipe(
    saved_int8: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    subject = load(resolve(str(saved_int8)))
    again = write_saved_model(subject, Recipe(), tmp_path / "again")
    assert list(again.recipe.switches) == ["int8_weight_only"]
    assert again.origin == str(tiny_folder)
    assert again.original_bytes == read_saved(saved_int8).original_bytes  # type: ignore[union-attr]
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (saved_int8 / WEIGHTS).read_bytes()


@settings(deadline=None, max_examples=25)
@given(blocks=st.integers(1, 9), groups=st.integers(1, 4), size=st.sampled_from([32, 64, 128]), seed=st.integers(0, 99))
def test_int4_codes_come_back_out_of_the_kernels_layout(blocks: int, groups: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (16 * blocks, groups * size), dtype=torch.int32, generator=generator)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    kept = unpack_codes(packed, size)
    assert torch.equal(kept.int() & 15, codes[:, ::2])
    assert torch.equal(kept.int() >> 4, codes[:, 1::2])
    assert torch.equal(pack_codes(kept), packed)


def test_packing_in_blocks_is_packing_at_once() -> None:
    codes = torch.randint(0, 16, (9000 // 16 * 16, 32), dtype=torch.int32)
    kept = codes[:, ::2].to(torch.uint8) | codes[:, 1::2].to(torch.uint8) << 4
    assert torch.equal(pack_codes(kept), torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1))


@pytest.mark.parametrize("case", ["int8", "int4", "dynamic int8 by channel", "NF4", "FP4", "LLM.int8()"])
def test_codes_stand_for_the_matrix_that_they_were_made_of(tiny_folder: Path, case: str) -> None:
    plain = load(resolve(str(tiny_folder))).model.get_submodule("model.layers.0.mlp.down_proj").weight
    subject, _ = changed(tiny_folder, CASES[case])
    matrix = float_matrix("down_proj", subject.model.get_submodule("model.layers.0.mlp.down_proj"))
    assert matrix.shape == plain.shape
    assert (matrix - plain).norm() / plain.norm() < (0.02 if "int8" in case else 0.2)


def test_a_saved_storyteller_is_asked_its_own_questions(home: Path, tmp_path: Path) -> None:
    subject = load(resolve("storyteller-draft"), device="cpu")
    write_saved_model(subject, Recipe(), tmp_path / "plain")
    ref = resolve(str(tmp_path / "plain"))
    assert ref.tells_stories
    assert "held-out stories" in held_out_text(ref).source
    assert examples(ref) == examples(resolve("storyteller-draft"))


# What is wrong with a folder


def refusal(folder: Path) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load(resolve(str(folder)))
    assert caught.value.field == "model"
    return caught.value


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def edit(folder: Path, file: str, **changes: Any) -> None:
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))


def test_a_file_that_was_cut_short(saved_int8: Path) -> None:
    file = saved_int8 / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])
    assert "whole safetensors file" in refusal(saved_int8).allowed


def test_a_tensor_that_is_missing(saved_int8: Path) -> None:
    rewrite(saved_int8, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.scale"))
    assert "model.layers.1.mlp.up_proj.scale is missing" in refusal(saved_int8).value


def test_a_norm_that_is_missing(saved_int8: Path) -> None:
    rewrite(saved_int8, lambda tensors: tensors.pop("model.norm.weight"))
    assert "model.norm.weight is missing" in refusal(saved_int8).value


def test_a_tensor_too_many(saved_int8: Path) -> None:
    rewrite(saved_int8, lambda tensors: tensors.update({"model.ghost": torch.zeros(3)}))
    assert "model.ghost belongs to no layer" in refusal(saved_int8).value


def test_codes_of_another_shape(saved_int8: Path) -> None:
    name = "model.layers.0.mlp.up_proj.codes"
    rewrite(saved_int8, lambda tensors: tensors.update({name: tensors[name][:-1]}))
    error = refusal(saved_int8)
    assert name in error.value
    assert "128 x 64 I8" in error.allowed


def test_a_norm_of_another_shape(saved_int8: Path) -> None:
    rewrite(saved_int8, lambda tensors: tensors.update({"model.norm.weight": torch.ones(7)}))
    assert "model.norm.weight is 7" in refusal(saved_int8).value


def test_codes_of_another_type(saved_int8: Path) -> None:
    name = "model.layers.0.mlp.up_proj.codes"
    rewrite(saved_int8, lambda tensors: tensors.update({name: tensors[name].float()}))
    assert "F32" in refusal(saved_int8).value


def test_a_config_of_another_model(saved_int8: Path) -> None:
    edit(saved_int8, "config.json", intermediate_size=192)
    assert "as config.json says" in refusal(saved_int8).allowed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"layers": {"x": {"format": "int1", "rows": 1, "columns": 1}}}, "layers.x.format"),
        ({"layers": {"x": {"format": "int8", "rows": 0, "columns": 1}}}, "layers.x.rows"),
        ({"recipe": {"switches": {"no_such": {}}}}, "no_such"),
    ],
)
def test_a_recipe_that_cannot_be_read(saved_int8: Path, changes: dict[str, Any], said: str) -> None:
    edit(saved_int8, MARKER, **changes)
    assert said in refusal(saved_int8).value


def test_a_recipe_that_is_no_json(saved_int8: Path) -> None:
    (saved_int8 / MARKER).write_text("{")
    assert MARKER in refusal(saved_int8).value


def test_somebody_elses_recipe_is_let_alone(tiny_folder: Path, tmp_path: Path) -> None:
    subject, recipe = changed(tiny_folder, {})
    write_saved_model(subject, recipe, tmp_path / "saved")
    (tmp_path / "saved" / MARKER).write_text('{"name": "cake"}')
    assert read_saved(tmp_path / "saved") is None
    assert load(resolve(str(tmp_path / "saved"))).facts.held_as == ""


# Where it is written


def test_a_place_where_something_is(tiny_folder: Path, tmp_path: Path) -> None:
    subject, recipe = changed(tiny_folder, INT8)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for place in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with pytest.raises(RecipeError, match="empty") as caught:
            write_saved_model(subject, recipe, place)
        assert caught.value.field == "out"
    (tmp_path / "empty").mkdir()
    write_saved_model(subject, recipe, tmp_path / "empty")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_disk_that_is_full(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    subject, recipe = changed(tiny_folder, INT8)
    monkeypatch.setattr(write, "save_file", full)
    with pytest.raises(RecipeError, match="No space left") as caught:
        write_saved_model(subject, recipe, tmp_path / "deep" / "saved")
    assert caught.value.field == "out"
    assert list((tmp_path / "deep").iterdir()) == []


def test_weights_that_are_not_numbers_are_kept(tiny_folder: Path, tmp_path: Path) -> None:
    subject, recipe = changed(tiny_folder, {})
    subject.model.get_submodule("model.layers.0.mlp.up_proj").weight.data[0, 0] = torch.nan
    write_saved_model(subject, recipe, tmp_path / "saved")
    again = load(resolve(str(tmp_path / "saved"))).model
    assert again.get_submodule("model.layers.0.mlp.up_proj").weight[0, 0].isnan()


def test_what_cannot_be_saved_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    subject, recipe = changed(tiny_folder, {})
    with pytest.raises(RecipeError, match="a tokenizer of its own"):
        write_saved_model(replace(subject, tokenizer=None), recipe, tmp_path / "saved")
    for switches, said in (
        ({"prune_heads": {"ratio": 0.25}}, "multiple"),
        ({"bnb_4bit": {"double_quant": True}}, "double quantization"),
    ):
        subject, recipe = changed(tiny_folder, switches)
        logits(subject, 1)
        with pytest.raises(RecipeError) as caught:
            write_saved_model(subject, recipe, tmp_path / "saved")
        assert said in caught.value.value
        assert not (tmp_path / "saved").exists()


def test_widths_that_differ_are_written_down_and_keep_other_loaders_off(tiny_folder: Path, tmp_path: Path) -> None:
    subject, recipe = changed(tiny_folder, CASES["heads that differ by layer"])
    saved = write_saved_model(subject, recipe, tmp_path / "saved")
    assert saved.widths is not None
    assert saved.widths.by_name() == {"heads": (2, 3), "kv_heads": (2, 3)}
    facts = model_facts(resolve(str(tmp_path / "saved")))
    assert facts.uneven
    assert facts.parameters == sum(p.numel() for p in subject.model.parameters())
    with pytest.raises(Exception, match="quant"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    again = load(resolve(str(tmp_path / "saved")), device="cpu", dtype=torch.bfloat16)
    assert again.model.dtype == torch.bfloat16
    told = json.loads((tmp_path / "saved" / MARKER).read_text())
    for widths in ({"heads": [2]}, {"heads": [2, 0]}, {"heads": [3, 3], "kv_heads": [2, 3]}):
        (tmp_path / "saved" / MARKER).write_text(json.dumps(told | {"widths": widths}))
        with pytest.raises(RecipeError):
            load(resolve(str(tmp_path / "saved")), device="cpu")


def test_terms_travel_with_the_weights(tiny_folder: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
    (source / "NOTICE.md").write_text("terms")
    subject, recipe = changed(source, INT8)
    saved = write_saved_model(subject, recipe, tmp_path / "saved")
    assert (tmp_path / "saved" / "NOTICE.md").read_text() == "terms"
    assert saved.source_bytes == (source / "model.safetensors").stat().st_size


# Under a name


def test_a_name_stands_in_the_menu(tiny_folder: Path, home: Path) -> None:
    subject, recipe = changed(tiny_folder, INT8)
    write_saved_model(subject, recipe, own_folder("mine-8"))
    titles = {name: title for name, title, there in menu() if there}
    assert titles["mine-8"].endswith("int8 weights")
    assert model_facts(resolve("mine-8")).packed
    (home / "models" / "broken").mkdir()
    (home / "models" / "broken" / MARKER).write_text("{")
    assert "broken" in [name for name, _, _ in menu()]


def test_names_that_no_model_can_have(home: Path) -> None:
    assert {*SHIPPED, *FETCHED, *(one.folder for one in FETCHED.values())} <= TAKEN
    (home / "models" / "there").mkdir(parents=True)
    for name in ("", "..", "a/b", ".hidden", "x" * 81, "a\0b", "model.gguf", "storyteller", "there", "{}", "shape:x"):
        with pytest.raises(RecipeError) as caught:
            own_folder(name)
        assert caught.value.field == "name"


def test_the_command_line_saves(
    tiny_folder: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = json.dumps({"switches": {**INT8, "threads": {"count": 1}}})
    out = tmp_path / "saved"
    command = ["save", recipe, "--model", str(tiny_folder), "--out", str(out), "--gguf", str(tmp_path / "m.gguf")]
    monkeypatch.setattr("sys.argv", command)
    assert cli_save.main() == 0
    said = capsys.readouterr().out
    assert "no weight: Threads" in said
    assert "MB on disk" in said
    assert "in memory" in said
    assert load(resolve(str(out))).facts.packed
    assert cli_save.main() == 2
    assert "out:" in capsys.readouterr().err
    for wrong in (["--lane", "Z"], ["--name", "a/b"], []):
        place = [] if not wrong or "--name" in wrong else ["--out", str(tmp_path / "other")]
        monkeypatch.setattr("sys.argv", ["save", recipe, "--model", str(tiny_folder), *place, *wrong])
        assert cli_save.main() == 2


@pytest.mark.real
@pytest.mark.parametrize("case", ["int8", "int4"])
def test_gemma_computes_what_it_computed(gemma_folder: Path, tmp_path: Path, case: str) -> None:
    subject, recipe = changed(gemma_folder, CASES[case])
    before = [logits(subject, length)[-1] for length in (1, 40)]
    bytes_before = weight_bytes(subject.model)
    saved = write_saved_model(subject, recipe, tmp_path / "saved")
    del subject
    again = load(resolve(str(tmp_path / "saved")))
    for length, wanted in zip((1, 40), before, strict=True):
        assert torch.equal(logits(again, length)[-1], wanted)
    assert weight_bytes(again.model) == bytes_before
    assert weights_bytes(again.facts, Recipe()) == pytest.approx(bytes_before, rel=0.01)
    assert saved.original_bytes / (tmp_path / "saved" / WEIGHTS).stat().st_size > 1.1  # the embedding stays fp32
