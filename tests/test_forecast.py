"""Predicted bytes against those of live models, and the refusal of what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend import forecast as module
from backend.catalog import model_facts, resolve
from backend.devices import free_bytes
from backend.forecast import check_memory, forecast, forecast_lane, kv_bytes, kv_bytes_per_token, precisions
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe

MHA = ModelFacts(
    name="mha", architecture="llama", layers=8, hidden=512, ffn=1376, heads=8, kv_heads=8, head_dim=64, vocab=768,
    context=1024, parameters=768 * 512 + 8 * (4 * 512 * 512 + 3 * 512 * 1376 + 2 * 512) + 512,
    embedding_parameters=768 * 512,
)  # fmt: skip


def recipe(**switches: Any) -> Recipe:
    return Recipe.read({"switches": switches})


def weights(facts: ModelFacts = MHA, **switches: Any) -> int:
    return module.weights_bytes(facts, recipe(**switches))


def test_an_unchanged_model_holds_four_bytes_a_parameter() -> None:
    assert weights() == 4 * MHA.parameters
    assert weights(replace(MHA, devices=("cuda", "cpu"))) == 2 * MHA.parameters
    assert weights(cast={"dtype": "bf16"}) == 2 * MHA.parameters


def test_packing_a_tied_head_makes_a_second_copy_of_the_embedding() -> None:
    table = MHA.embedding_parameters
    extra = weights(int8_weight_only={}) - weights(int8_weight_only={"head": "keep"})
    assert table <= extra < 1.05 * table  # int8 and its scales
    untied = replace(MHA, tied=False, parameters=MHA.parameters + table)
    saved = weights(untied, int8_weight_only={"head": "keep"}) - weights(untied, int8_weight_only={})
    assert 0.95 * 3 * table < saved < 3 * table


def test_fewer_bits_are_fewer_bytes_in_order() -> None:
    *sizes, whole = precisions(MHA).values()
    assert sizes == sorted(sizes, reverse=True)
    assert whole < precisions(MHA)["int8"]
    assert weights(int4_weight_only={"group_size": 128}) < weights(int4_weight_only={"group_size": 32})
    assert weights(bnb_4bit={"double_quant": True}) <= weights(bnb_4bit={})  # equal where the CPU packs them again


def test_mixed_precision_is_the_sum_of_its_layers() -> None:
    four, eight = (weights(**{kind: {"head": "keep"}}) for kind in ("int4_weight_only", "int8_weight_only"))
    half = weights(mixed_precision={"levels": "0-3:int4 head:keep"})
    assert half == pytest.approx((four + eight) / 2, abs=1)
    assert weights(mixed_precision={"levels": "0-7:int4 head:int4"}) == weights(int4_weight_only={"head": "int4"})
    assert weights(mixed_precision={}) == weights(int8_weight_only={})
    kept = weights(mixed_precision={"levels": "0-6:keep head:keep"})
    assert weights() - kept == pytest.approx((weights() - eight) / 8, abs=1)
    dropped = weights(mixed_precision={"levels": "0-5:int4"}, drop_layers={"count": 2})
    assert dropped == weights(int4_weight_only={"head": "int8"}, drop_layers={"count": 2})


@pytest.mark.parametrize("kind", ["gptq", "awq", "hqq", "narrow_weight_only"])
@pytest.mark.parametrize("head", ["int4", "int8", "keep"])
def test_whatever_chooses_the_codes_four_bits_are_four_bits(kind: str, head: str) -> None:
    same = {"group_size": 64, "head": head}
    assert weights(**{kind: same}) == weights(int4_weight_only=same)
    one, other = (forecast_lane(MHA, recipe(**{name: same}), 100) for name in (kind, "int4_weight_only"))
    assert one.process_bytes == other.process_bytes


def test_pruning_takes_its_share() -> None:
    body = 4 * (MHA.parameters - MHA.embedding_parameters - MHA.hidden)
    assert weights() - weights(drop_layers={"count": 2}) == pytest.approx(body / 4, rel=0.001)
    assert weights() - weights(prune_heads={"ratio": 0.5}) == 4 * 8 * 2 * 512 * 512
    assert weights() - weights(prune_neurons={"ratio": 0.5}) == 4 * 8 * 3 * 512 * 688
    assert weights() - weights(kv_heads={"count": 2}) == 4 * 8 * 2 * 512 * 6 * 64


def test_kv_bytes_follow_heads_layers_and_precision() -> None:
    assert kv_bytes_per_token(MHA, Recipe()) == 2 * 8 * 8 * 64 * 4
    assert kv_bytes_per_token(MHA, recipe(kv_heads={"count": 2})) == 2 * 8 * 2 * 64 * 4
    assert kv_bytes_per_token(MHA, recipe(cast={})) == 2 * 8 * 8 * 64 * 2
    assert kv_bytes(MHA, recipe(drop_layers={"count": 4}), 10) == 10 * 2 * 4 * 8 * 64 * 4


def test_windows_bound_the_cache() -> None:
    a_token = kv_bytes_per_token(MHA, Recipe())
    assert kv_bytes(MHA, recipe(window_cache={"window": 64}), 500) == 64 * a_token
    assert kv_bytes(MHA, recipe(window_cache={"window": 64, "sinks": 4}), 500) == 68 * a_token  # their keys twice more
    sliding = replace(MHA, sliding_window=100, sliding_layers=6)
    assert kv_bytes(sliding, Recipe(), 500) == (6 * 100 + 2 * 500) * a_token // 8


def test_a_quantized_cache_is_packed_but_for_its_newest_tokens() -> None:
    # A head's token is 64 numbers a side in half a byte each, and 4 bytes of scale for 32 of them.
    asked = {"key_bits": 4, "value_bits": 4, "group_size": 32, "recent": 32}
    packed = 8 * 8 * 2 * (64 // 2 + 64 // 32 * 4)
    assert kv_bytes_per_token(MHA, recipe(quantized_cache=asked)) == packed
    full = kv_bytes_per_token(MHA, Recipe())
    assert kv_bytes(MHA, recipe(quantized_cache=asked), 63) == 63 * full
    assert kv_bytes(MHA, recipe(quantized_cache=asked), 500) == 448 * packed + 52 * full


def test_a_draft_is_counted_with_its_lane(tiny_draft_folder: Path) -> None:
    plain = forecast_lane(MHA, Recipe(), 100)
    drafted = forecast_lane(MHA, recipe(draft_model={"model": str(tiny_draft_folder)}), 100)
    small = model_facts(resolve(str(tiny_draft_folder)))
    assert drafted.weights_bytes == plain.weights_bytes + 4 * small.parameters
    assert drafted.kv_bytes > plain.kv_bytes


def race(*variants: dict[str, Any], **fields: Any) -> Race:
    return Race(prompt="Once", variants=tuple(recipe(**v) for v in variants), **fields)


def test_all_lanes_of_a_race_are_resident_together() -> None:
    predicted = forecast(race({}, {"int8_weight_only": {}}), MHA)
    assert [lane.lane for lane in predicted.lanes] == ["base", "A", "B"]
    assert predicted.peak_bytes("cpu") >= sum(lane.total_bytes for lane in predicted.lanes)
    assert predicted.peak_bytes("cuda") == 0


def test_lanes_count_on_their_own_devices() -> None:
    both = replace(MHA, devices=("cuda", "cpu"))
    predicted = forecast(race({"device": {"name": "cpu"}}), both)
    assert [lane.device for lane in predicted.lanes] == ["cuda", "cpu"]
    assert predicted.peak_bytes("cpu") < predicted.peak_bytes("cpu") + predicted.peak_bytes("cuda")


def test_what_does_not_fit_is_refused_with_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    need = forecast(race({}), MHA).peak_bytes("cpu")
    monkeypatch.setattr(module, "free_bytes", lambda device: need)
    check_memory(race({}), MHA)
    monkeypatch.setattr(module, "free_bytes", lambda device: need - 1)
    with pytest.raises(RecipeError) as caught:
        check_memory(race({}), MHA)
    assert caught.value.field == "model"
    assert f"{need / 1e9:.1f} GB" in caught.value.value
    assert "GB free on cpu" in caught.value.allowed


def test_a_model_far_too_large_is_refused_on_this_machine() -> None:
    config = '{"model_type": "llama", "hidden_size": 65536, "num_hidden_layers": 200, "num_attention_heads": 64,'
    config += ' "vocab_size": 128256, "max_position_embeddings": 4096}'
    huge = race({}, model=f"shape:{config}")
    with pytest.raises(RecipeError, match="predicted"):
        check_memory(huge, model_facts(resolve(huge.model)))


def test_free_memory_is_a_plausible_figure() -> None:
    import psutil

    free = free_bytes("cpu")
    assert free is not None
    assert 0 < free <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    "switches",
    [{}, {"cast": {}}, {"prune_heads": {"ratio": 0.25}}, {"drop_layers": {"count": 1}}, {"kv_heads": {"count": 2}}],
)
def test_the_prediction_agrees_with_the_live_model(
    tiny_folder: Path, switches: dict[str, Any], held: Callable[[Path, Recipe], int]
) -> None:
    asked = recipe(**switches)
    facts = replace(model_facts(resolve(str(tiny_folder))), devices=("cpu",))
    assert module.weights_bytes(facts, asked) == pytest.approx(held(tiny_folder, asked), rel=0.02)


@pytest.mark.real
@pytest.mark.parametrize("switches", [{"int8_weight_only": {}}, {"int4_weight_only": {"group_size": 64}}])
def test_the_prediction_agrees_with_live_gemma(
    gemma_folder: Path, switches: dict[str, Any], held: Callable[[Path, Recipe], int]
) -> None:
    asked = recipe(**switches)
    facts = replace(model_facts(resolve(str(gemma_folder))), devices=("cpu",))
    assert module.weights_bytes(facts, asked) == pytest.approx(held(gemma_folder, asked), rel=0.02)


@pytest.fixture
def held() -> Callable[[Path, Recipe], int]:
    """Bytes that a live model really holds after a recipe, each storage once."""

    def measure(folder: Path, asked: Recipe) -> int:
        from backend.engine.load import load
        from backend.techniques.quantize.counting import weight_bytes
        from backend.techniques.registry import apply_switch

        subject = load(resolve(str(folder)), device="cpu")
        subject.sample_ids = list(range(1, 65))
        for switch in asked.pipeline:
            apply_switch(subject, switch)
        return weight_bytes(subject.model)

    return measure
