"""Encoding: mean pooling under the mask and unit length, against what is computed by hand; and how models are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from backend.catalog import model_facts, resolve
from backend.engine.encode import embed, embed_all, make_batch, most_tokens, timed
from backend.engine.load import load
from backend.engine.pooling import read_pooling
from backend.recipe.base import RecipeError
from backend.sentences import own_sentences
from backend.techniques.base import Subject

SHAPE = {
    "model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 320, "max_position_embeddings": 512,
}  # fmt: skip


@pytest.fixture(scope="module")
def subject(tiny_encoder_folder: Path) -> Subject:
    return load(resolve(str(tiny_encoder_folder)), device="cpu")


def test_a_vector_is_the_mean_of_the_last_hidden_states_at_unit_length(subject: Subject) -> None:
    batch = make_batch(subject, ["Anna took the lantern", "The lantern is red. Ben was in the mill."])
    assert batch.mask[0].sum() < batch.mask[1].sum() == batch.ids.shape[1]
    with torch.inference_mode():
        hidden = subject.model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    got = embed(subject, batch)
    for row in range(2):
        real = hidden[row, : int(batch.mask[row].sum())]
        mean = real.mean(dim=0)
        assert torch.allclose(got[row], mean / mean.norm(), atol=1e-6)


def test_what_shares_a_call_changes_nothing_in_fp32(subject: Subject) -> None:
    sentences = own_sentences().sentences[:10]
    one, eight = embed_all(subject, sentences, 1), embed_all(subject, sentences, 8)
    assert one.shape == (10, 64)
    assert abs(one - eight).max() < 1e-5


def test_a_long_text_is_cut_to_what_is_read(subject: Subject) -> None:
    batch = make_batch(subject, ["The lantern is red. " * 200])
    assert batch.ids.shape == (1, most_tokens(subject))


def test_calls_are_timed_one_by_one(subject: Subject) -> None:
    spent = timed(subject, [make_batch(subject, ["A lantern"])] * 3)
    assert len(spent) == 3
    assert min(spent) > 0


def test_a_shape_reads_bytes_and_has_the_parameters_that_its_facts_say() -> None:
    ref = resolve(f"shape:{json.dumps(SHAPE)}")
    subject = load(ref, device="cpu")
    assert subject.facts.task == "encoder"
    assert subject.facts.parameters == sum(p.numel() for p in subject.model.parameters())
    assert make_batch(subject, ["ab"]).ids.tolist() == [[97, 98]]
    assert embed(subject, make_batch(subject, ["ab", "abc"])).isfinite().all()


def test_facts_of_a_folder_count_what_is_run(subject: Subject, tiny_encoder_folder: Path) -> None:
    facts = model_facts(resolve(str(tiny_encoder_folder)))
    assert facts == subject.facts
    assert facts.task == "encoder"
    assert subject.model.pooler is None
    assert facts.parameters == sum(p.numel() for p in subject.model.parameters())
    assert facts.kv_values_per_token == 0


def test_a_bert_that_is_told_to_decode_is_a_decoder() -> None:
    assert model_facts(resolve(f"shape:{json.dumps(SHAPE | {'is_decoder': True})}")).task == "decoder"


def test_a_tokenizer_of_another_model_is_named(subject: Subject, storyteller_tokenizer: object) -> None:
    from dataclasses import replace

    small = replace(subject, facts=replace(subject.facts, vocab=2))
    with pytest.raises(RecipeError, match="vocabulary of 2"):
        make_batch(small, ["Anna took the lantern"])


def test_the_folder_says_what_the_vector_is(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_encoder_folder, tmp_path / "first"))
    config = folder / "1_Pooling" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"word_embedding_dimension": 64, "pooling_mode_cls_token": True}))
    subject = load(resolve(str(folder)), device="cpu")
    assert subject.pooling == "first"
    batch = make_batch(subject, ["Anna took the lantern", "Ben"])
    with torch.inference_mode():
        hidden = subject.model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state[:, 0]
    assert torch.allclose(embed(subject, batch), hidden / hidden.norm(dim=1, keepdim=True), atol=1e-6)
    for told in ({"pooling_mode_max_tokens": True}, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}):
        config.write_text(json.dumps(told))
        with pytest.raises(RecipeError, match="mean or the first token"):
            read_pooling("first", folder)
    config.write_text(json.dumps({"pooling_mode": "mean"}))
    assert read_pooling("first", folder) == "mean"
