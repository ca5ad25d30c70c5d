"""Tokens to text, piece by piece: whole characters only, and nothing lost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backend.engine.text import Pieces, encode
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.storyteller.stories import END
from backend.storyteller.tokenizer import build_tokenizer
from backend.techniques.base import Subject

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)


def subject(tokenizer: Any, vocab: int) -> Subject:
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    facts = ModelFacts("t", "llama", 1, 8, 8, 1, 1, 8, vocab, 64, 100, 64)
    return Subject(LlamaForCausalLM(config), tokenizer, facts, torch.device("cpu"))


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Words begin with an underline, unknown characters fall back to bytes, and decoding drops the first space."""
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    for token in ("▁", "a", "b", "c", "ü", "▁a", "ab"):
        vocab[token] = len(vocab)
    core = Tokenizer(models.BPE(vocab, [("▁", "a"), ("a", "b")], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


BYTE_LEVEL = subject(build_tokenizer(), 768)
SENTENCEPIECE = subject(sentencepiece_like(), 300)


def pieces_of(on: Subject, prompt: list[int], ids: list[int]) -> list[str]:
    pieces = Pieces(on, prompt)
    return [*(pieces.add(token) for token in ids), pieces.flush()]


@pytest.mark.parametrize("on", [BYTE_LEVEL, SENTENCEPIECE], ids=["byte level", "sentencepiece"])
@settings(max_examples=150, deadline=None)
@given(prompt=TEXTS, text=TEXTS)
def test_pieces_join_to_the_whole_text(on: Subject, prompt: str, text: str) -> None:
    before = on.tokenizer.encode("a" + prompt, add_special_tokens=False)
    ids = on.tokenizer.encode(text, add_special_tokens=False)
    whole, start = on.tokenizer.decode(before + ids), on.tokenizer.decode(before)
    given_out = pieces_of(on, before, ids)
    assert start + "".join(given_out) == whole
    if "\ufffd" not in text:
        assert not any("\ufffd" in part for part in given_out)


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, len(BYTE_LEVEL.tokenizer) - 1), max_size=40))
def test_any_tokens_come_out_within_few_steps(ids: list[int]) -> None:
    """Random tokens are seldom text; what they hold must not be kept back for long."""
    pieces = Pieces(BYTE_LEVEL, [1])
    silent = 0
    for token in ids:
        silent = 0 if pieces.add(token) else silent + 1
        assert silent < 8
    pieces.flush()
    assert pieces.flush() == ""


def test_a_split_character_is_held_until_it_is_whole() -> None:
    ids = BYTE_LEVEL.tokenizer.encode("é", add_special_tokens=False)
    assert len(ids) == 2
    pieces = Pieces(BYTE_LEVEL, [])
    assert [pieces.add(ids[0]), pieces.add(ids[1])] == ["", "é"]


def test_a_character_that_never_ends_is_flushed_as_broken() -> None:
    ids = BYTE_LEVEL.tokenizer.encode("é", add_special_tokens=False)
    assert pieces_of(BYTE_LEVEL, [], ids[:1]) == ["", "\ufffd"]


def test_the_first_space_of_a_word_is_kept() -> None:
    ids = SENTENCEPIECE.tokenizer.encode("ab a", add_special_tokens=False)
    assert SENTENCEPIECE.tokenizer.decode(ids) == "ab a"
    assert "".join(pieces_of(SENTENCEPIECE, ids, ids)) == " ab a"


def test_special_tokens_are_shown_as_text() -> None:
    end = BYTE_LEVEL.tokenizer.convert_tokens_to_ids(END)
    assert Pieces(BYTE_LEVEL, [5]).add(end) == END


def test_the_storyteller_begins_with_its_opening_token_once() -> None:
    end = BYTE_LEVEL.tokenizer.convert_tokens_to_ids(END)
    plain, marked = encode(BYTE_LEVEL, "Once there was"), encode(BYTE_LEVEL, END + "Once there was")
    assert plain == marked
    assert plain.count(end) == 1
    assert plain[0] == end


def test_markup_stays_text() -> None:
    text = "<b>bold</b> & [link](x)"
    ids = encode(BYTE_LEVEL, text)
    assert BYTE_LEVEL.tokenizer.decode(ids[1:]) == text


def test_a_shape_takes_bytes_and_gives_numbers() -> None:
    shape = subject(None, 100)
    assert encode(shape, "aé") == [97, 0xC3 % 100, 0xA9 % 100]
    assert pieces_of(shape, [1], [7, 12]) == ["7 ", "12 ", ""]


def test_tokens_that_the_model_has_no_embedding_for_are_refused() -> None:
    with pytest.raises(RecipeError, match="vocabulary"):
        encode(subject(BYTE_LEVEL.tokenizer, 100), "Once there was a lantern")
