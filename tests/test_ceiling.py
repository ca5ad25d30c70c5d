"""The ceiling against sums done by hand, and what must hold of it for every model and recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.catalog import model_facts, resolve
from backend.ceiling import compute_type, decode_ceiling, decode_round, elsewhere, prefill_flops, prefill_s, step_bytes
from backend.forecast import kv_bytes, weights_bytes
from backend.known_machines import KNOWN_MACHINES
from backend.machine import Machine
from backend.recipe.facts import ModelFacts
from backend.recipe.recipe import Recipe

LLAMA = ModelFacts(
    name="llama", architecture="llama", layers=4, hidden=256, ffn=512, heads=8, kv_heads=4, head_dim=32, vocab=1000,
    context=2048, parameters=2 * 256_000 + 4 * (2 * 256 * 32 * 12 + 3 * 256 * 512 + 2 * 256) + 256,
    embedding_parameters=256_000, tied=False,
)  # fmt: skip
FORMATS: tuple[dict[str, Any], ...] = (  # fewer bits from one to the next; the cache stays fp32
    {}, {"int8_weight_only": {}}, {"int4_weight_only": {"group_size": 32, "head": "int4"}},
)  # fmt: skip


def recipe(**switches: Any) -> Recipe:
    return Recipe.read({"switches": switches})


def steady(rate: float = 1e10) -> Machine:
    return Machine("cpu", 2, ((1 << 20, rate),), {"float32": 1e11, "bfloat16": 4e11, "int8": 8e11})


def test_a_step_reads_every_weight_but_of_the_table_one_row() -> None:
    matrices = LLAMA.parameters - 256_000
    assert step_bytes(LLAMA, Recipe(), 1) == 4 * (matrices + 256) + kv_bytes(LLAMA, Recipe(), 1)


def test_zeros_are_multiplied_unless_a_kernel_skips_them() -> None:
    head = 2 * 256_000
    whole = prefill_flops(LLAMA, Recipe(), 10) - head
    zeros = recipe(magnitude={"ratio": 0.9})
    skipped = recipe(magnitude={"ratio": 0.9}, sparse_kernels={})
    assert prefill_flops(LLAMA, zeros, 10) - head == whole
    assert prefill_flops(LLAMA, skipped, 10) - head == pytest.approx(0.1 * whole)
    assert weights_bytes(LLAMA, zeros) == weights_bytes(LLAMA, Recipe())
    assert weights_bytes(LLAMA, skipped) < weights_bytes(LLAMA, zeros)


def test_a_tied_table_is_read_whole_for_it_is_the_head() -> None:
    tied = replace(LLAMA, tied=True, parameters=LLAMA.parameters - 256_000)
    assert step_bytes(tied, Recipe(), 1) - kv_bytes(tied, Recipe(), 1) == weights_bytes(tied, Recipe())
    packed = recipe(int8_weight_only={})  # the head becomes a matrix of its own, the table is then read by row
    saved = weights_bytes(tied, packed) - step_bytes(tied, packed, 1) + kv_bytes(tied, packed, 1)
    assert saved == 4 * (256_000 - 256)


def test_the_ceiling_is_bandwidth_over_bytes() -> None:
    one = decode_round(LLAMA, Recipe(), 100)
    assert decode_ceiling(one, lambda size: 1e10) == pytest.approx(1e10 / step_bytes(LLAMA, Recipe(), 100))


def test_a_round_of_guesses_reads_the_model_once_and_the_draft_once_a_guess(tiny_draft_folder: Path) -> None:
    small = model_facts(resolve(str(tiny_draft_folder)))
    drafted = decode_round(LLAMA, recipe(draft_model={"model": str(tiny_draft_folder), "tokens": 3}), 10)
    assert drafted.tokens == 4
    alone = step_bytes(LLAMA, Recipe(), 10)
    assert drafted.moved_bytes == alone + 3 * step_bytes(replace(small, devices=("cpu",)), Recipe(), 10)
    looked_up = decode_round(LLAMA, recipe(prompt_lookup={"tokens": 4}), 10)
    assert looked_up.bytes_per_token == alone / 5


def test_prefill_is_two_operations_a_parameter_and_token() -> None:
    inner = LLAMA.parameters - 2 * 256_000 - (4 * 2 + 1) * 256
    assert prefill_flops(LLAMA, Recipe(), 100) == 200 * inner + 2 * 256_000
    machine = steady(1e15)
    spent = prefill_s(LLAMA, Recipe(), 100, machine.bandwidth_bytes_per_s, machine.flops_per_s)
    assert spent == pytest.approx(prefill_flops(LLAMA, Recipe(), 100) / 1e11)


def test_a_short_prefill_is_bound_by_reading_the_weights() -> None:
    machine = steady(1e9)
    spent = prefill_s(LLAMA, Recipe(), 1, machine.bandwidth_bytes_per_s, machine.flops_per_s)
    assert spent == pytest.approx(step_bytes(LLAMA, Recipe(), 1) / 1e9)


def test_long_calls_multiply_in_the_type_that_their_kernels_take() -> None:
    assert compute_type(LLAMA, Recipe()) == "float32"
    assert compute_type(LLAMA, recipe(int8_weight_only={})) == "float32"
    assert compute_type(LLAMA, recipe(int4_weight_only={})) == "bfloat16"
    assert compute_type(LLAMA, recipe(gptq={})) == compute_type(LLAMA, recipe(narrow_weight_only={})) == "bfloat16"
    assert compute_type(LLAMA, recipe(int8_dynamic={})) == "int8"
    assert compute_type(LLAMA, recipe(mixed_precision={"levels": "0:int4"})) == "bfloat16"
    assert compute_type(LLAMA, recipe(mixed_precision={"levels": "0:keep"})) == "float32"
    assert compute_type(replace(LLAMA, devices=("cuda", "cpu")), Recipe()) == "bfloat16"


def test_idle_experts_are_not_read() -> None:
    busy = replace(LLAMA, experts=4, used_experts=4, expert_ffn=96)
    idle = replace(busy, used_experts=1)
    numbers = 3 * LLAMA.layers * 3 * LLAMA.hidden * 96
    assert step_bytes(busy, Recipe(), 1) - step_bytes(idle, Recipe(), 1) == 4 * numbers
    assert step_bytes(busy, Recipe(), 1) == step_bytes(idle, recipe(expert_top_k={"count": 4}), 1)
    assert step_bytes(idle, recipe(quantize_experts={}), 1) < step_bytes(idle, Recipe(), 1)
    assert prefill_flops(busy, Recipe(), 3) - prefill_flops(idle, Recipe(), 3) == 2 * 3 * numbers


def test_on_other_machines_speed_follows_their_bandwidth_and_what_cannot_be_says_why() -> None:
    small, large = (
        next(one for one in KNOWN_MACHINES if one.name == name) for name in ("NVIDIA L4", "NVIDIA H100 SXM")
    )
    there = elsewhere(LLAMA, Recipe(), 100, 50, large)
    assert there.tokens_per_s == pytest.approx(large.bandwidth_bytes_per_s / step_bytes(_on_gpu(), Recipe(), 100))
    assert there.prefill_s
    slower = elsewhere(LLAMA, Recipe(), 100, 50, small)
    assert slower.tokens_per_s
    assert slower.tokens_per_s < there.tokens_per_s
    assert "CPU only" in elsewhere(LLAMA, recipe(int8_dynamic={}), 100, 50, large).reason
    huge = replace(LLAMA, parameters=10**12)
    assert elsewhere(huge, Recipe(), 100, 50, large).reason == "does not fit into its memory"
    assert elsewhere(huge, Recipe(), 100, 50, KNOWN_MACHINES[0]).tokens_per_s  # how much is built in, nobody says


def _on_gpu() -> ModelFacts:
    return replace(LLAMA, devices=("cuda", "cpu"))


facts_of = st.builds(
    lambda layers, heads, group, ffn, vocab, tied, window: _facts(layers, heads, group, ffn, vocab, tied, window),
    st.integers(1, 12), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.integers(1, 40), st.integers(1, 400),
    st.booleans(), st.one_of(st.none(), st.integers(1, 300)),
)  # fmt: skip


def _facts(layers: int, kv: int, group: int, ffn: int, vocab: int, tied: bool, window: int | None) -> ModelFacts:
    hidden, head_dim, heads = 128, 32, kv * group
    table, inner = 32 * vocab * hidden, 2 * hidden * head_dim * (heads + kv) + 3 * hidden * 32 * ffn + 2 * hidden
    return ModelFacts(
        name="any", architecture="llama", layers=layers, hidden=hidden, ffn=32 * ffn, heads=heads, kv_heads=kv,
        head_dim=head_dim, vocab=32 * vocab, context=4096,
        parameters=table * (1 if tied else 2) + layers * inner + hidden,
        embedding_parameters=table, tied=tied, sliding_window=window, sliding_layers=layers // 2 if window else 0,
    )  # fmt: skip


@given(facts_of, st.integers(1, 4000))
def test_fewer_bits_are_fewer_bytes_and_a_higher_ceiling(facts: ModelFacts, context: int) -> None:
    moved = [step_bytes(facts, Recipe.read({"switches": one}), context) for one in FORMATS]
    assert moved == sorted(moved, reverse=True)
    ceilings = [
        decode_ceiling(decode_round(facts, Recipe.read({"switches": one}), context), _falling) for one in FORMATS
    ]
    assert ceilings == sorted(ceilings)


@given(facts_of, st.integers(1, 2000), st.integers(0, 2000), st.sampled_from(FORMATS))
def test_more_context_never_moves_fewer_bytes(facts: ModelFacts, context: int, more: int, form: dict[str, Any]) -> None:
    asked = Recipe.read({"switches": form})
    assert kv_bytes(facts, asked, context) <= kv_bytes(facts, asked, context + more)
    short, long = (decode_round(facts, asked, length) for length in (context, context + more))
    assert decode_ceiling(short, _falling) >= decode_ceiling(long, _falling)


@given(facts_of, st.integers(1, 8), st.integers(1, 4000), st.sampled_from(FORMATS))
def test_more_layers_are_more_bytes(facts: ModelFacts, more: int, context: int, form: dict[str, Any]) -> None:
    a_layer = (facts.parameters - facts.embedding_parameters * (1 if facts.tied else 2) - facts.hidden) // facts.layers
    deeper = replace(facts, layers=facts.layers + more, parameters=facts.parameters + more * a_layer)
    asked = Recipe.read({"switches": form})
    assert weights_bytes(deeper, asked) > weights_bytes(facts, asked)
    assert kv_bytes(deeper, asked, context) > kv_bytes(facts, asked, context)
    assert step_bytes(deeper, asked, context) > step_bytes(facts, asked, context)


def _falling(size: float) -> float:
    """A machine with a cache of 8 MB."""
    return Machine("cpu", 2, ((1 << 20, 9e10), (8 << 20, 5e10), (1 << 28, 1e10)), {}).bandwidth_bytes_per_s(size)


@given(st.lists(st.tuples(st.integers(1, 10**9), st.floats(1e9, 1e12)), min_size=1, max_size=6), st.integers(1, 10**10))
def test_bandwidth_never_grows_with_the_size(reads: list[tuple[int, float]], size: int) -> None:
    machine = Machine("cpu", 1, tuple(sorted(reads)), {})
    assert machine.bandwidth_bytes_per_s(size) >= machine.bandwidth_bytes_per_s(2 * size)
    assert machine.bandwidth_bytes_per_s(size) >= machine.memory_bytes_per_s
