"""Precision by layer on tiny models: each unit is what was asked of it, and the receipt counts what is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backend.allocation import frontier, units_of
from backend.forecast import held
from backend.packing import unit_bytes
from backend.parts import weight_parts
from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switch import read_switch
from backend.recipe.switches.mixed import MixedPrecision, read_levels
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.likely import likely_tokens
from backend.techniques.quantize.split_linear import SplitLinear
from backend.techniques.quantize.units import linear_units
from backend.techniques.registry import apply_switch, read_back

Run = Callable[[Subject], Tensor]


def change(subject: Subject, levels: str = "", **fields: Any) -> Effect:
    switch = read_switch("mixed_precision", {"levels": levels, **fields})
    apply_switch(subject, switch)
    return read_back(subject, switch)


def classes(subject: Subject) -> dict[str, set[type]]:
    """The classes of each unit's matrices."""
    found: dict[str, set[type]] = {}
    for name, unit in linear_units(subject.model).items():
        found.setdefault(unit, set()).add(type(subject.model.get_submodule(name)))
    return found


def error(got: Tensor, want: Tensor) -> float:
    return ((got.float() - want).norm() / want.norm()).item()


def test_every_unit_is_what_was_asked_of_it(any_subject: Subject, logits: Run) -> None:
    want = logits(any_subject)
    effect = change(any_subject, "0:int4 1:keep head:int4")
    assert classes(any_subject) == {"0": {Int4Linear}, "1": {nn.Linear}, "2": {Int8Linear}, "head": {Int4Linear}}
    assert effect.took_effect
    assert effect.facts["levels"] == "0:int4 1:keep 2:int8 head:int4"
    assert effect.facts["matrices_not_as_asked"] == 0
    assert effect.facts["head"] == "int4"
    assert effect.summary.startswith("1 layer float, 1 layer int4, 1 layer int8, head int4, ")
    assert [s.reason for s in effect.skipped if s.layer.startswith("model.layers")] == ["kept, as asked"] * 7
    assert 0 < error(logits(any_subject), want) < 0.5


@pytest.mark.parametrize(
    "levels", ["", "0:int4", "0:int4 1:keep head:int4", "0-2:int4 head:int4", "head:keep", "head:split"]
)
def test_bits_and_bytes_are_those_that_were_predicted(any_subject: Subject, levels: str) -> None:
    facts = any_subject.facts
    split = {"split_group": 32, "likely": 0.25}
    switch = MixedPrecision.read({"levels": levels, **split})
    sizes = unit_bytes(weight_parts(facts), switch, 4)
    zero = {level: {unit: {"kld": 0.0} for unit in sizes} for level in ("int4", "int8")}
    zero["split"] = {"head": {"kld": 0.0}}
    predicted = frontier(units_of(zero, sizes)).of(switch.by_unit(facts.layers))
    whole = held(facts, Recipe(switches={switch.kind: switch})).total
    effect = change(any_subject, levels, **split)
    assert effect.facts["bits_per_weight"] == pytest.approx(predicted.bits_per_weight, abs=0.001)
    assert weight_bytes(any_subject.model) == pytest.approx(whole, rel=0.002)
    by_unit = read_bits(effect.facts["bits_by_unit"])
    assert by_unit["0"] == pytest.approx(8 * sizes["0"].levels[switch.by_unit(3)["0"]] / sizes["0"].weights, abs=0.01)


def read_bits(text: str) -> dict[str, float]:
    """'0:5.00 1-2:8.75 head:8.75' as numbers, ranges by their first unit."""
    return {entry.split(":")[0].split("-")[0]: float(entry.split(":")[1]) for entry in text.split()}


def test_one_level_for_all_is_the_uniform_switch(build: Callable[..., Subject], logits: Run) -> None:
    for levels, kind, fields in (
        ("", "int8_weight_only", {}),
        ("0-2:int4 head:int4", "int4_weight_only", {"head": "int4"}),
    ):
        ours, other = build("gqa"), build("gqa")
        change(ours, levels)
        apply_switch(other, read_switch(kind, fields))
        assert torch.equal(logits(ours), logits(other))


SPLIT = {"likely": 0.25, "split_group": 32}


@pytest.mark.parametrize("rows", [1, 16, 40])
def test_a_split_head_is_int8_in_the_rows_of_likely_tokens_and_int4_in_the_others(tiny_gqa: Subject, rows: int) -> None:
    head = tiny_gqa.model.get_output_embeddings()
    likely = likely_tokens(tiny_gqa, 0.25)
    fours, eights = Int4Linear(head, 32), Int8Linear(head)
    effect = change(tiny_gqa, "head:split", **SPLIT)
    split = tiny_gqa.model.get_output_embeddings()
    assert isinstance(split, SplitLinear)
    assert torch.equal(split.likely, likely)
    x = torch.randn(1, rows, head.in_features, generator=torch.Generator().manual_seed(1))
    want = fours(x)
    want[..., likely] = eights(x)[..., likely]
    assert torch.allclose(split(x), want, rtol=1e-4, atol=1e-5)
    assert effect.facts["levels"] == "0-2:int8 head:split"
    assert effect.facts["matrices_not_as_asked"] == 0
    assert ", head split, " in effect.summary


def test_likely_tokens_are_those_of_the_highest_mean_probability(tiny_gqa: Subject) -> None:
    assert tiny_gqa.read_text is not None
    ids = tiny_gqa.read_text("", 1024).ids
    with torch.inference_mode():
        windows = [torch.tensor([ids[start : start + 256]]) for start in range(0, len(ids), 256)]
        rows = torch.cat([tiny_gqa.model(input_ids=window).logits[0] for window in windows])
    means = rows.softmax(-1).mean(0)
    likely = likely_tokens(tiny_gqa, 0.1)
    others = torch.ones(len(means), dtype=torch.bool)
    others[likely] = False
    assert len(likely) == round(0.1 * len(means))
    assert means[likely].min() >= means[others].max() - 1e-7


def test_without_text_no_head_is_split(tiny_gqa: Subject) -> None:
    tiny_gqa.read_text, tiny_gqa.sample_ids = None, []
    with pytest.raises(RecipeError) as caught:
        change(tiny_gqa, "head:split", **SPLIT)
    assert caught.value.value == "head:split"


def test_a_tied_head_leaves_the_embedding_alone(any_subject: Subject) -> None:
    embedding = any_subject.model.get_input_embeddings().weight
    before = embedding.detach().clone()
    change(any_subject, "head:int4")
    assert torch.equal(any_subject.model.get_input_embeddings().weight, before)


def test_a_technique_that_did_nothing_is_found_out(tiny_llama: Subject) -> None:
    effect = read_back(tiny_llama, read_switch("mixed_precision", {"levels": "0:int4"}))
    assert not effect.took_effect
    assert effect.facts["levels"] == "0-2:keep head:keep"
    assert effect.facts["matrices_not_as_asked"] == 22
    assert effect.facts["bits_per_weight"] == 32.0


def test_another_mix_is_not_taken_for_the_one_asked_for(tiny_llama: Subject) -> None:
    apply_switch(tiny_llama, read_switch("int8_weight_only", {}))
    effect = read_back(tiny_llama, read_switch("mixed_precision", {"levels": "0:int4"}))
    assert not effect.took_effect
    assert effect.facts["matrices_not_as_asked"] == 7


def test_what_is_not_possible_is_named(build: Callable[..., Subject]) -> None:
    subject = build("llama", intermediate_size=24)  # narrower than a group
    effect = change(subject, "0-2:int4")
    assert effect.took_effect
    assert effect.facts["matrices_not_as_asked"] == 3
    assert effect.facts["levels"] == "0-2:int4+keep head:int8"
    assert "3 matrices not as asked" in effect.summary
    found = {s.layer: s.reason for s in effect.skipped}
    assert found["model.layers.*.mlp.down_proj (3)"] == "24 inputs do not fill one group of 32"


def test_layers_are_counted_as_pruning_left_them(tiny_llama: Subject) -> None:
    apply_switch(tiny_llama, read_switch("drop_layers", {"count": 1}))
    with pytest.raises(RecipeError) as caught:
        change(tiny_llama, "2:int4")
    assert caught.value.value == "2"
    assert "layers 0 to 1 and head" in caught.value.allowed
    effect = change(tiny_llama, "1:int4")
    assert effect.facts["levels"] == "0:int8 1:int4 head:int8"


def test_nothing_but_kept_layers_is_the_users_mistake(tiny_llama: Subject) -> None:
    with pytest.raises(RecipeError, match="kept, as asked"):
        change(tiny_llama, "0-2:keep head:keep")


def test_units_are_those_that_an_inspection_measures(any_subject: Subject) -> None:
    units = linear_units(any_subject.model)
    assert list(dict.fromkeys(units.values())) == ["0", "1", "2", "head"]
    assert units["model.layers.1.mlp.up_proj"] == "1"
    assert set(read_levels("0-2:int4 head:int8")) == set(units.values())
