"""The packed embedding: the rows that it gives, the table that it shares with the head, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from backend.packing import held_bytes
from backend.parts import weight_parts
from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switches.embedding import EmbeddingTable
from backend.techniques.base import Subject
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.quantize.groups import FOUR_BITS, as_groups, blocks_of, ranges
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.packed_embedding import PackedEmbedding, pack_table
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]
IDS = torch.tensor([[3, 0, 255, 3]])


def applied(subject: Subject, switches: dict[str, Any]) -> Recipe:
    """The subject under a recipe."""
    recipe = Recipe.read({"switches": switches})
    for switch in recipe.pipeline:
        apply_switch(subject, switch)
    return recipe


def test_eight_bits_by_hand() -> None:
    table = nn.Embedding(2, 2)
    table.weight.data = torch.tensor([[127.0, -1.4], [0.0, 0.0]])
    packed = pack_table(table, 8, None)
    assert packed.codes.tolist() == [[127, -1], [0, 0]]
    assert packed(torch.tensor([0, 1])).tolist() == [[127.0, -1.0], [0.0, 0.0]]


def test_four_bits_are_those_of_the_int4_layers() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(7, 64)
    blocks = blocks_of(table.weight, 32)
    scale, zero = ranges(blocks, FOUR_BITS)
    wanted = as_groups(FOUR_BITS.codes(blocks, scale, zero), scale, zero).weight()
    packed = pack_table(table, 4, None)
    assert torch.equal(packed(torch.arange(7)), wanted)
    assert packed.codes.nbytes == 7 * 32


@pytest.mark.parametrize(("bits", "most"), [(8, 0.01), (4, 0.12)])
def test_gemma_multiplies_its_rows_as_before(build: Build, bits: int, most: float) -> None:
    subject = build("gemma")
    before = subject.model.get_input_embeddings()(IDS)
    apply_switch(subject, EmbeddingTable(bits=bits))
    after = subject.model.get_input_embeddings()(IDS)
    assert after.dtype == before.dtype
    assert (after - before).norm() / before.norm() < most


def test_rows_of_a_16_bit_model_stay_16_bit(build: Build) -> None:
    subject = build("gemma")
    applied(subject, {"cast": {}})
    before = subject.model.get_input_embeddings()(IDS)
    applied(subject, {"embedding_table": {}})
    after = subject.model.get_input_embeddings()(IDS)
    assert after.dtype == before.dtype == torch.bfloat16
    assert torch.allclose(after.float(), before.float(), atol=0.02 * before.abs().max().item())


def test_a_tied_head_in_int8_and_the_embedding_are_one_table(build: Build) -> None:
    subject = build("llama")
    applied(subject, {"int8_weight_only": {}})
    alone = weight_bytes(subject.model)
    applied(subject, {"embedding_table": {}})
    effect = read_back(subject, EmbeddingTable())
    assert effect.facts["shared_with_the_head"]
    assert effect.summary == "embedding int8, one table with the head"
    assert alone - weight_bytes(subject.model) == 256 * 64 * 4, "the floats are gone, and nothing came instead"


def test_a_head_that_read_the_same_floats_is_packed_with_them(build: Build) -> None:
    subject = build("llama")
    applied(subject, {"embedding_table": {}})
    assert isinstance(subject.model.get_output_embeddings(), Int8Linear)
    assert read_back(subject, EmbeddingTable()).facts["shared_with_the_head"]
    assert not any(p.shape == (256, 64) for p in subject.model.parameters())


def test_a_head_of_its_own_stays(build: Build) -> None:
    subject = build("llama", tie_word_embeddings=False)
    head = subject.model.get_output_embeddings()
    applied(subject, {"embedding_table": {}})
    assert subject.model.get_output_embeddings() is head
    assert not read_back(subject, EmbeddingTable()).facts["shared_with_the_head"]


def test_an_encoder_looks_up_packed_words() -> None:
    torch.manual_seed(0)
    words = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = BertModel(words, add_pooling_layer=False).eval()
    model.embeddings.word_embeddings = pack_table(model.embeddings.word_embeddings, 8, None)
    assert model(input_ids=torch.tensor([[1, 2, 3]])).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("shape", ["llama", "gemma"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "switches",
    [
        {"embedding_table": {}},
        {"embedding_table": {"bits": 4}},
        {"embedding_table": {}, "int8_weight_only": {}},
        {"embedding_table": {"bits": 4}, "int8_weight_only": {}},
        {"embedding_table": {}, "int8_weight_only": {"head": "keep"}},
        {"embedding_table": {}, "int4_weight_only": {"head": "int4"}},
        {"embedding_table": {}, "cast": {}},
    ],
    ids=lambda switches: "+".join(switches) + str(list(switches.values())),
)
def test_the_forecast_counts_it(build: Build, shape: str, tied: bool, switches: dict[str, Any]) -> None:
    subject = build(shape, tie_word_embeddings=tied)
    parts = weight_parts(subject.facts)
    recipe = applied(subject, switches)
    width = 2 if "cast" in switches else 4
    assert held_bytes(parts, recipe, width).total == pytest.approx(weight_bytes(subject.model), rel=0.03)


def test_read_back_looks_at_the_live_table(build: Build) -> None:
    subject = build("llama")
    applied(subject, {"embedding_table": {}})
    assert not read_back(subject, EmbeddingTable(bits=4)).took_effect
    assert not read_back(build("llama"), EmbeddingTable()).took_effect


def test_what_is_no_plain_table_gets_a_card(build: Build) -> None:
    subject = build("llama")
    subject.model.get_input_embeddings().weight.data[3, 1] = torch.nan
    with pytest.raises(RecipeError, match="no finite numbers"):
        applied(subject, {"embedding_table": {}})

    class Doubled(nn.Embedding):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    subject = build("llama")
    subject.model.set_input_embeddings(Doubled(256, 64))
    with pytest.raises(RecipeError, match="Doubled"):
        applied(subject, {"embedding_table": {}})


def test_rows_that_groups_do_not_divide_are_refused_before_loading(build: Build) -> None:
    facts = build("llama", hidden_size=48, head_dim=12).facts
    assert "do not divide rows of 48" in (EmbeddingTable(bits=4).unfit(facts) or "")
    assert EmbeddingTable().unfit(facts) is None


def test_prints_itself() -> None:
    assert "bits=8" in repr(pack_table(nn.Embedding(4, 32), 8, None))
    assert isinstance(pack_table(nn.Embedding(4, 32), 4, None), PackedEmbedding)
