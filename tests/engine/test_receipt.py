"""The receipt against figures counted by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.catalog import resolve
from backend.engine.busythreads import TASKS, busy_threads
from backend.engine.decode import Decoder
from backend.engine.headcount import head_counts
from backend.engine.held import families
from backend.engine.kvgrowth import kv_growth
from backend.engine.load import load
from backend.engine.receipt import alike, receipt
from backend.engine.witness import witness
from backend.recipe.race import Sampling
from backend.recipe.recipe import Recipe
from backend.techniques.base import Subject
from backend.techniques.kernels import listen
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.registry import apply_switch

Make = Callable[..., Any]
EMBEDDING = 64 * 64  # vocabulary x hidden
ATTENTION = 64 * 64 * 2 + 64 * 32 * 2  # q and o; k and v of two KV heads
MLP = 3 * 64 * 96
NORMS = 5 * 64  # two a layer and the last


def applied(subject: Subject, **switches: dict[str, Any]) -> dict[str, Any]:
    """Apply the switches, run a few tokens and read the receipt, as a lane does."""
    recipe = Recipe.read({"switches": switches})
    for switch in recipe.pipeline:
        apply_switch(subject, switch)
    decoder = Decoder(subject, Sampling(), seed=1)
    decoder.start([3, 9, 4, 7], room=8)
    for _ in range(4):
        decoder.step()
    subject.run = witness(subject, decoder, [3, 9, 4, 7])
    return receipt(subject, recipe)


def test_classes_counts_and_bytes_by_hand(subject_of: Make) -> None:
    facts = applied(subject_of())
    found = {(one["class"], one["format"]): one for one in facts["families"]}
    linear = found["Linear", "float32"]
    assert linear["count"] == 2 * 7 + 1
    assert linear["weights"] == 2 * (ATTENTION + MLP) + EMBEDDING
    assert linear["bytes"] == 4 * linear["weights"]
    assert found["LlamaRMSNorm", "float32"]["bytes"] == 4 * NORMS
    assert facts["weights"] == 2 * (ATTENTION + MLP) + 2 * EMBEDDING + NORMS
    rotary = found["LlamaRotaryEmbedding", "float32"]
    assert facts["weights_bytes"] == 4 * facts["weights"] + rotary["bytes"]
    assert facts["bits_per_weight"] == pytest.approx(32, abs=0.1)
    assert facts["sparsity"] == pytest.approx(0, abs=2e-3)  # the padding row of the embedding is zero
    assert facts["sparsity_of"] == facts["weights"]


def test_a_shared_tensor_counts_once(subject_of: Make) -> None:
    tied = subject_of(tie_word_embeddings=True)
    facts = applied(tied)
    assert facts["weights"] == 2 * (ATTENTION + MLP) + EMBEDDING + NORMS
    assert facts["weights_bytes"] == weight_bytes(tied.model)


@pytest.mark.parametrize(
    "kind", ["int8_weight_only", "int4_weight_only", "int8_dynamic", "bnb_int8", "bnb_4bit", "cast"]
)
def test_families_hold_what_the_model_holds(kind: str, subject_of: Make) -> None:
    subject = subject_of()
    facts = applied(subject, **{kind: {}})
    assert sum(one["bytes"] for one in facts["families"]) == weight_bytes(subject.model)
    assert facts["weights"] == 2 * (ATTENTION + MLP) + 2 * EMBEDDING + NORMS
    assert facts["bits_per_weight"] < 32


def test_int8_by_hand(subject_of: Make) -> None:
    facts = applied(subject_of(), int8_weight_only={})
    (eight,) = [one for one in facts["families"] if one["class"] == "Int8Linear"]
    rows = 2 * (64 + 32 + 32 + 64 + 96 + 96 + 64) + 64
    width = eight["weights"]  # one byte a weight; 64 and 96 need no padding
    assert eight["format"] == "int8"
    assert eight["bytes"] == width + rows * (4 + 2)  # a float32 scale and a bf16 one a row


def test_sparsity_is_counted_by_class_and_in_all(subject_of: Make) -> None:
    facts = applied(subject_of(), magnitude={"ratio": 0.5})
    by_class = {one["class"]: one["sparsity"] for one in facts["families"]}
    pruned = 2 * (ATTENTION + MLP)
    assert by_class["Linear"] == pytest.approx(pruned / 2 / (pruned + EMBEDDING), abs=1e-3)
    assert by_class["Embedding"] == pytest.approx(0, abs=0.02)  # the padding row may be zero
    assert facts["sparsity"] == pytest.approx(pruned / 2 / facts["weights"], abs=6e-3)


def test_zeros_are_found_in_int8_codes_and_not_in_int4(subject_of: Make) -> None:
    packed = applied(subject_of(), magnitude={"ratio": 0.5}, int8_weight_only={})
    (eight,) = [one for one in packed["families"] if one["class"] == "Int8Linear"]
    assert 0.4 < eight["sparsity"] < 0.6
    assert packed["effects"][0]["facts"]["counted"] == "live"
    unseen = applied(subject_of(), int4_weight_only={"head": "int4"})
    (four,) = [one for one in unseen["families"] if one["class"] == "Int4Linear"]
    assert four["sparsity"] is None


def test_kv_bytes_by_hand(subject_of: Make) -> None:
    # keys and values x layers x KV heads x head size x 4 bytes
    facts = applied(subject_of())
    assert facts["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 4
    assert facts["kv_layers"] == [
        {"class": "DynamicLayer", "count": 2, "bytes_per_token": 256, "grows": "with every token"}
    ]
    assert (facts["heads"], facts["kv_heads"], facts["head_dim"], facts["layers"]) == (4, 2, 16, 2)
    assert applied(subject_of(), kv_heads={"count": 1})["kv_bytes_per_token"] == 2 * 2 * 16 * 4
    assert applied(subject_of(), cast={})["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 2


def test_sliding_and_static_layers_are_called_so(subject_of: Make) -> None:
    sliding = kv_growth(subject_of("gemma"))["kv_layers"]
    assert [one["grows"] for one in sliding] == ["up to a window of 16 tokens", "with every token"]
    static = applied(subject_of(), static_cache={})
    assert static["kv_bytes_per_token"] == 512
    assert static["kv_layers"][0]["grows"].startswith("not at all")
    assert static["run"]["cache"] == "StaticCache"
    assert static["run"]["slots"] == 12
    full = kv_growth_after_window(subject_of())
    assert full == 512  # a window that is full already: bytes of one of its slots


def kv_growth_after_window(subject: Subject) -> int:
    apply_switch(subject, Recipe.read({"switches": {"window_cache": {"window": 4}}}).pipeline[0])
    return int(kv_growth(subject)["kv_bytes_per_token"])


def test_heads_that_differ_by_layer(subject_of: Make) -> None:
    subject = subject_of()
    block = subject.model.model.layers[1].self_attn
    block.q_proj = torch.nn.Linear(64, 32, bias=False)  # two heads on two KV heads
    block.o_proj = torch.nn.Linear(32, 64, bias=False)
    block.num_key_value_groups = 1
    facts = receipt(subject, Recipe())
    assert facts["heads"] == [4, 2]
    assert facts["kv_heads"] == 2


def test_heads_of_other_builds() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=64, n_positions=64))
    assert head_counts(model, [2, 2], [16, 16]) == {"heads": [2, 2], "kv_heads": [2, 2]}
    assert head_counts(torch.nn.Linear(2, 2), [], []) == {"heads": None, "kv_heads": None}
    assert alike([]) is None


@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_the_kernel_that_ran_differs_between_eager_and_sdpa(shape: str, subject_of: Make) -> None:
    fused, eager = applied(subject_of(shape)), applied(subject_of(shape), attention_kernel={"name": "eager"})
    assert sum(fused["run"]["decode_kernels"].values()) == 2  # once a layer
    assert all(name.startswith("sdpa") for name in fused["run"]["decode_kernels"])
    assert eager["run"]["decode_kernels"] == eager["run"]["prefill_kernels"] == {"eager": 2}


def test_softmax_alone_is_not_eager_attention() -> None:
    math = listen(lambda: _math())
    assert math.compiled_regions == 0
    assert math.kernels == {"sdpa math": 1}  # its own softmax is not taken for eager attention
    assert listen(lambda: torch.softmax(torch.ones(3, 4), -1)).kernels == {}


def _math() -> torch.Tensor:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q = torch.ones(1, 2, 4, 8)
    with sdpa_kernel(SDPBackend.MATH):
        return torch.nn.functional.scaled_dot_product_attention(q, q, q)


@pytest.mark.skipif(not TASKS.exists(), reason="only Linux keeps the account")
def test_threads_that_compute_are_counted() -> None:
    before = torch.get_num_threads()
    big = torch.ones(700, 700)
    try:
        torch.set_num_threads(1)
        assert busy_threads(lambda: [big @ big for _ in range(20)]) == 1
        torch.set_num_threads(2)
        assert busy_threads(lambda: [big @ big for _ in range(20)]) == 2
    finally:
        torch.set_num_threads(before)


def test_a_draft_is_not_heard_for_the_target(subject_of: Make, with_plan: Make, scripted: Make) -> None:
    subject = with_plan(subject_of(), proposer=scripted([[1, 2], [3]], width=4))
    facts = applied(subject)
    assert sum(facts["run"]["decode_kernels"].values()) == 2
    assert facts["run"]["drafted"] == 3
    assert facts["run"]["rounds"] == 4


@pytest.mark.alone
def test_reading_costs_the_storyteller_well_below_a_second() -> None:
    subject = load(resolve("storyteller"))
    facts = applied(subject)
    began = time.perf_counter()
    receipt(subject, Recipe())
    assert time.perf_counter() - began < 1.0
    assert facts["weights_bytes"] == sum(family.bytes for family in families(subject.model))
    assert facts["heads"] == 8


def test_a_lane_gives_it_when_it_is_warm_and_again_with_what_was_seen(tiny_folder: Path, home: Path) -> None:
    from backend.lane import Lane

    spec = {"model": str(tiny_folder), "prompt": "Once there was a lantern in the harbor.",
            "variants": [{"switches": {"attention_kernel": {"name": "eager"}}}]}  # fmt: skip
    lane = Lane("A", spec, lambda share, text: None)
    lane.load()
    lane.transform()
    assert lane.warm(ring=None, vocab=0)["receipt"]["run"] is None
    facts = lane.witness()["receipt"]
    assert facts["run"]["decode_kernels"] == {"eager": 2}
    assert facts["run"]["cache"] == "DynamicCache"
    assert facts["effects"][0]["took_effect"] is True
    assert facts["compiled"] is None
