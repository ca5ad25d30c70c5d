"""A request's text as it goes out: whole characters, nothing of a stop string, and every token's score once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from backend.engine.tokenbytes import TokenBytes
from backend.engine.writer import Writer
from backend.recipe.facts import ModelFacts
from backend.serving.talk import Ask, Said
from backend.storyteller.tokenizer import build_tokenizer
from backend.techniques.base import Subject

VOCAB = 768
CONFIG = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
FACTS = ModelFacts("t", "llama", 1, 8, 8, 1, 1, 8, VOCAB, 64, 100, 64)
SUBJECT = Subject(LlamaForCausalLM(CONFIG), build_tokenizer(), FACTS, torch.device("cpu"))
NAMES = TokenBytes(SUBJECT)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)


def written(text: str, *stop: str, logprobs: int | None = None) -> tuple[list[Said], Writer]:
    """All that is said of a text whose tokens come one by one."""
    ids = SUBJECT.tokenizer.encode(text, add_special_tokens=False)
    writer, said = Writer(SUBJECT, [5], Ask(1, "", None, stop=stop, logprobs=logprobs), NAMES), []
    for token in ids:
        said.append(writer.add(token, torch.zeros(VOCAB)))
        if writer.stopped:
            break
    else:
        said.append(writer.end())
    return [one for one in said if one], writer


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_no_piece_holds_a_broken_character(text: str) -> None:
    said, writer = written(text)
    assert "".join(one.text for one in said) == text
    assert all("\ufffd" not in one.text for one in said) or "\ufffd" in text
    assert sum(one.tokens for one in said) == writer.tokens


@pytest.mark.parametrize("stop", ["\U0001f642", "\U0001f642 c", "ï", "ve \U0001f642 caf\u00e9"])
def test_a_stop_string_of_many_tokens_is_never_shown(stop: str) -> None:
    text = "naïve \U0001f642 café and more"
    said, writer = written(text, stop, logprobs=0)
    shown = "".join(one.text for one in said)
    assert writer.stopped
    assert shown == text[: text.index(stop)]
    offsets = [scored.offset for one in said for scored in one.scored]
    assert offsets == sorted(offsets)
    assert all(offset < len(shown) for offset in offsets)


@given(TEXTS)
@settings(max_examples=30, deadline=None)
def test_each_token_is_scored_once_and_its_bytes_join_to_the_text(text: str) -> None:
    said, writer = written(text, logprobs=1)
    scored = [scored for one in said for scored in one.scored]
    assert len(scored) == writer.tokens
    assert b"".join(one.chosen.data for one in scored).decode() == text
    assert all(one.chosen.logprob == pytest.approx(-torch.tensor(float(VOCAB)).log().item()) for one in scored)
