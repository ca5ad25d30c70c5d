"""Recipes: any of them survives its JSON, and every mistake names its field, what is allowed and the remedy."""

from __future__ import annotations

import itertools
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

import annotated_types as at
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import MAX_PROMPT_CHARACTERS, Preset, Race, all_presets, read_preset
from backend.recipe.recipe import Recipe
from backend.recipe.switch import ONE_OF, Group, Switch, all_switches, read_switch

KINDS = list(all_switches())
FACTS = ModelFacts(
    name="storyteller", architecture="llama", layers=8, hidden=512, ffn=1376, heads=8, kv_heads=8, head_dim=64,
    vocab=768, context=1024, parameters=25_700_000, embedding_parameters=393_216,
)  # fmt: skip


def values(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Every value that a field allows, read off its own schema: a new switch needs nothing here."""
    bounds = {type(rule): rule for rule in metadata}
    low = bounds[at.Ge].ge if at.Ge in bounds else bounds[at.Gt].gt if at.Gt in bounds else None
    high = bounds[at.Le].le if at.Le in bounds else bounds[at.Lt].lt if at.Lt in bounds else None
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return st.sampled_from(typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(part, metadata) for part in typing.get_args(annotation)])
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(low, high)
    if annotation is float:
        return st.floats(low, high, exclude_max=at.Lt in bounds, exclude_min=at.Gt in bounds, allow_nan=False)
    assert annotation is str, f"no strategy for {annotation}"
    return st.text(min_size=1, max_size=40)


def fields(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    model = all_switches()[kind].model_fields
    return st.fixed_dictionaries({}, optional={n: values(f.annotation, f.metadata) for n, f in model.items()})


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    chosen: dict[str, Any] = {}
    for kind in draw(st.lists(st.sampled_from(KINDS), unique=True, max_size=5)):
        try:
            chosen = Recipe.read({"switches": {**chosen, kind: draw(fields(kind))}}).model_dump(mode="json")["switches"]
        except RecipeError:
            continue  # it clashes with one that is there
    return Recipe.read({"switches": chosen})


@given(recipes())
@settings(max_examples=80, deadline=None)
def test_any_recipe_survives_its_json(recipe: Recipe) -> None:
    again = Recipe.read(json.loads(recipe.model_dump_json()))
    assert again == recipe
    assert again.key == recipe.key
    assert again.label == recipe.label
    assert [type(switch) for switch in again.pipeline] == [type(switch) for switch in recipe.pipeline]


@given(recipes(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_key_does_not_depend_on_the_order_of_keys(recipe: Recipe, random: Any) -> None:
    items = list(recipe.model_dump(mode="json")["switches"].items())
    random.shuffle(items)
    shuffled = {kind: dict(reversed(data.items())) for kind, data in items}
    assert Recipe.read({"switches": shuffled}).key == recipe.key


@given(recipes(), recipes())
@settings(max_examples=60, deadline=None)
def test_keys_are_equal_only_for_equal_recipes(one: Recipe, other: Recipe) -> None:
    assert (one.key == other.key) == (one == other)


@given(recipes(), st.text(st.characters(exclude_characters="\0"), min_size=1).filter(str.strip), st.integers(1, 8192))
@settings(max_examples=40, deadline=None)
def test_any_race_survives_its_json(recipe: Recipe, prompt: str, tokens: int) -> None:
    race = Race.read({"prompt": prompt, "max_new_tokens": tokens, "variants": [recipe.model_dump(mode="json")]})
    again = Race.read(json.loads(json.dumps(race.model_dump(mode="json"))))
    assert again == race
    assert again.key == race.key
    assert again.prompt == prompt


@pytest.mark.parametrize("kind", KINDS)
def test_every_switch_can_be_drawn_and_read(kind: str) -> None:
    switch = all_switches()[kind]
    assert switch.title
    assert switch.summary.endswith(".")
    assert switch.summary.count(". ") == 0, "one sentence"
    assert isinstance(switch.group, Group)
    assert read_switch(kind, {}).label
    for name, field in switch.model_fields.items():
        assert field.description, f"{kind}.{name} has no tooltip"


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(KINDS, 2)))
def test_a_pair_clashes_in_either_order_or_in_none(one: str, other: str) -> None:
    def reason(first: str, second: str) -> str | None:
        try:
            Recipe.read({"switches": {first: {}, second: {}}})
        except RecipeError as error:
            return error.allowed
        return None

    assert reason(one, other) == reason(other, one)
    groups = [all_switches()[kind].group for kind in (one, other)]
    if groups[0] == groups[1] and groups[0] in ONE_OF:
        assert "one of the two: " in reason(one, other)


def test_the_pipeline_cuts_before_it_packs() -> None:
    recipe = Recipe.read({"switches": {"prompt_lookup": {}, "int8_weight_only": {}, "kv_heads": {}, "drop_layers": {}}})
    assert [switch.kind for switch in recipe.pipeline] == [
        "drop_layers",
        "kv_heads",
        "int8_weight_only",
        "prompt_lookup",
    ]


def test_simulated_is_said_of_the_whole_recipe() -> None:
    assert Recipe.read({"switches": {"magnitude": {}}}).simulated
    assert not Recipe.read({"switches": {"prune_heads": {}}}).simulated
    assert not Recipe().simulated
    assert Recipe().label == "unchanged"


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"switches": {"int9": {}}}, "switches.int9", "int8_weight_only"),
    ({"switches": {"prune_heads": {"ration": 0.5}}}, "switches.prune_heads.ration", "ratio"),
    ({"switches": {"prune_heads": {"ratio": 1.0}}}, "switches.prune_heads.ratio", "less than 1"),
    ({"switches": {"prune_heads": {"ratio": -0.1}}}, "switches.prune_heads.ratio", "greater than or equal to 0"),
    ({"switches": {"magnitude": {"ratio": float("nan")}}}, "switches.magnitude.ratio", "finite"),
    ({"switches": {"int4_weight_only": {"group_size": 48}}}, "switches.int4_weight_only.group_size", "64"),
    ({"switches": {"kv_heads": {"count": 0}}}, "switches.kv_heads.count", "greater than or equal to 1"),
    ({"switches": {"cast": {"dtype": 5}}}, "switches.cast.dtype", "bf16"),
    ({"switches": {"cast": []}}, "switches.cast", "dict"),
    ({"switches": ["cast"]}, "switches", "object of switches"),
    ({"swiches": {}}, "swiches", "switches"),
]


@pytest.mark.parametrize(("data", "field", "allowed"), MISTAKES)
def test_a_mistake_names_field_value_allowed_and_remedy(data: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.read(data)
    card = caught.value.card()
    assert card["field"] == field
    assert allowed in card["allowed"]
    assert card["value"]
    assert card["remedy"].endswith(".")
    assert card["field"] in str(caught.value)


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        ({"prompt": ""}, "prompt", "some text"),
        ({"prompt": " \n "}, "prompt", "some text"),
        ({"prompt": 7}, "prompt", "some text"),
        ({"prompt": "a\0b"}, "prompt", "without NUL"),
        ({"prompt": "x" * 10_000_000}, "prompt", f"{MAX_PROMPT_CHARACTERS:,}"),
        ({"variants": []}, "variants", "1"),
        ({"variants": [{}] * 4}, "variants", "3"),
        ({"max_new_tokens": 0}, "max_new_tokens", "greater than or equal to 1"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature", "greater than or equal to 0"),
        ({"variants": [{"switches": {"cast": {"dtype": "fp8"}}}]}, "switches.cast.dtype", "bf16"),
        ({"speed": "fast"}, "speed", "variants"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
    ],
)
def test_a_mistake_in_a_race_is_a_card_too(change: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Race.read({"prompt": "Once", "variants": [{}], **change})
    card = caught.value.card()
    assert field in card["field"]
    assert allowed in card["allowed"]
    assert len(card["value"]) <= 200
    assert card["remedy"]


def test_a_missing_key_is_named() -> None:
    with pytest.raises(RecipeError) as caught:
        Race.read({"variants": [{}]})
    assert caught.value.card()["field"] == "prompt"


def test_markup_in_a_prompt_is_text_like_any_other() -> None:
    text = "<script>alert(1)</script> **bold** $x$"
    assert Race.read({"prompt": text, "variants": [{}]}).prompt == text


@pytest.mark.parametrize(
    ("switches", "changes", "allowed"),
    [
        ({"prune_heads": {"ratio": 0.97}}, {}, "at least one of 8 heads"),
        ({"prune_heads": {"ratio": 0.01}}, {}, "at least"),
        ({"drop_layers": {"count": 8}}, {}, "1 to 7"),
        ({"kv_heads": {"count": 8}}, {}, "fewer than"),
        ({"kv_heads": {"count": 3}}, {}, "1, 2, 4"),
        ({"kv_heads": {"count": 1}}, {"kv_heads": 1}, "one key-value head already"),
        ({"window_cache": {"window": 2048}}, {}, "1024"),
        ({"window_cache": {"sinks": 4}}, {"sliding_window": 64, "sliding_layers": 8}, "no sinks"),
        ({"cast": {"dtype": "fp16"}}, {}, "GPU"),
        ({"int8_dynamic": {}}, {"devices": ("cuda:0", "cpu")}, "CPU"),
        ({"device": {"name": "cuda"}}, {}, "cpu"),
        ({"draft_model": {}}, {"name": "gemma"}, "vocabulary"),
        ({"attention_kernel": {"name": "flash_attention_2"}}, {}, "GPU"),
        ({"attention_kernel": {"name": "sdpa_cudnn"}}, {}, "this kernel needs a CUDA GPU"),
    ],
)
def test_what_a_model_cannot_have_is_refused_before_loading(switches: Any, changes: Any, allowed: str) -> None:
    facts = ModelFacts(**{**FACTS.__dict__, **changes})
    with pytest.raises(RecipeError) as caught:
        Recipe.read({"switches": switches}).check(facts)
    assert allowed in caught.value.allowed
    assert caught.value.field == f"switches.{next(iter(switches))}"


def test_what_a_model_can_have_is_not_refused() -> None:
    recipe = Recipe.read({"switches": {"prune_heads": {"ratio": 0.5}, "int8_weight_only": {}, "draft_model": {}}})
    recipe.check(FACTS)
    assert recipe.get("prune_heads").ratio == 0.5
    assert recipe.get("cast") is None


@pytest.mark.parametrize(
    ("kind", "fields", "depends"),
    [
        ("int8_dynamic", {}, True),
        ("int8_dynamic", {"scale": "token"}, False),
        ("bnb_int8", {}, True),
        ("int8_weight_only", {}, False),
    ],
)
def test_what_depends_on_the_shape_of_a_call_says_so(kind: str, fields: dict[str, Any], depends: bool) -> None:
    assert read_switch(kind, fields).shape_dependent is depends


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError):
        read_switch("cast", {}).dtype = "fp16"


def test_two_switches_of_one_name_are_refused() -> None:
    with pytest.raises(TypeError, match="two switches are called 'cast'"):
        type("Other", (Switch,), {"__module__": __name__, "__annotations__": {}, "kind": "cast"})


def test_lanes_are_named_in_order() -> None:
    race = Race.read({"prompt": "Once", "variants": [{}, {"switches": {"cast": {}}}, {}]})
    assert [name for name, _ in race.lanes] == ["base", "A", "B", "C"]
    assert race.lanes[2][1].label == "bf16"


@pytest.mark.parametrize("name", sorted(all_presets()))
def test_every_preset_reads_and_says_what_to_look_at(name: str) -> None:
    preset = all_presets()[name]
    assert preset.look_at.endswith(".")
    assert Preset.read(json.loads(preset.model_dump_json())) == preset


def test_there_are_a_dozen_presets_for_both_models() -> None:
    models = [preset.race.model for preset in all_presets().values()]
    assert len(models) >= 12
    assert "storyteller" in models
    assert any(model.startswith("gemma") for model in models)


@pytest.mark.parametrize(
    ("text", "field", "allowed"),
    [
        (None, "preset", "an existing preset file"),
        ("{", "preset", "a JSON file"),
        (
            '{"title": "t", "look_at": "l.", "race": {"prompt": "p", "variants": [{}], "wings": 2}}',
            "bad.race.wings",
            "model",
        ),
        ('{"title": "t", "look_at": "l.", "race": {"prompt": "p", "variants": []}}', "bad.race.variants", "1"),
        ("[]", "bad", "dict"),
    ],
)
def test_a_bad_preset_is_a_card(tmp_path: Path, text: str | None, field: str, allowed: str) -> None:
    path = tmp_path / "bad.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_preset(path)
    assert caught.value.field == field
    assert allowed in caught.value.allowed


def test_a_preset_of_bytes_that_are_no_text_is_a_card(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="a JSON file"):
        read_preset(tmp_path / "bad.json")
