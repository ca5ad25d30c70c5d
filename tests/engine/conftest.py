"""Tiny seeded models for the engine's tests, and proposers of the test's own choosing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Cache, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from backend.recipe.facts import ModelFacts
from backend.techniques.base import DecodePlan, Subject
from backend.techniques.guess import Chooser, Guess, Proposer

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,  # tied, so small a model only repeats its last token
    "pad_token_id": 0,
}


def make_model(shape: str, seed: int, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    if shape == "llama":
        return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).eval()
    layers = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**SIZES, **layers, **changes})).eval()


def make_subject(shape: str = "llama", seed: int = 1, **changes: Any) -> Subject:
    """A subject around a seeded tiny model of that shape; `changes` go into its config."""
    model = make_model(shape, seed, **changes)
    c = model.config
    counts = [c.num_hidden_layers, c.hidden_size, c.intermediate_size, c.num_attention_heads, c.num_key_value_heads]
    sizes = [c.head_dim or c.hidden_size // c.num_attention_heads, c.vocab_size, c.max_position_embeddings]
    facts = ModelFacts(f"{shape}-{seed}", c.model_type, *counts, *sizes, model.num_parameters(), 0)
    return Subject(model, None, facts, torch.device("cpu"))


def planned(subject: Subject, **plan: Any) -> Subject:
    """The same live model under another decode plan."""
    return replace(subject, plan=DecodePlan(**plan))


class Scripted:
    """A proposer that guesses what the test says, and keeps what it heard."""

    name = "scripted"
    source = "lookup"
    pace = None

    def __init__(self, guesses: Sequence[list[int] | Guess], width: int = 4) -> None:
        self.width = self.depth = width
        self.heard: list[int] = []
        self._guesses = list(guesses)

    def start(self, ids: list[int], cache: Cache) -> None:
        self.heard.clear()

    def propose(self, ids: list[int], chooser: Chooser, most: int) -> Guess:
        guess = self._guesses.pop(0) if self._guesses else []
        return guess if isinstance(guess, Guess) else Guess(guess[:most])

    def accepted(self, path: Sequence[int]) -> None:
        self.heard.append(len(path))


@pytest.fixture(scope="session")
def subject_of() -> Callable[..., Subject]:
    return make_subject


@pytest.fixture(scope="session")
def with_plan() -> Callable[..., Subject]:
    return planned


@pytest.fixture(scope="session")
def scripted() -> Callable[..., Proposer]:
    return Scripted


@pytest.fixture(scope="session")
def prompt() -> Callable[..., list[int]]:
    """Seeded token ids."""

    def make(length: int, seed: int = 0, vocab: int = 64) -> list[int]:
        return torch.randint(1, vocab, (length,), generator=torch.Generator().manual_seed(seed)).tolist()

    return make


@pytest.fixture(scope="session")
def gemma_like(tmp_path_factory: pytest.TempPathFactory, storyteller_tokenizer: Any) -> Path:
    """A seeded Gemma 3 of seven layers, of which the sixth sees everything, with the storyteller's tokenizer."""
    torch.manual_seed(6)
    folder = tmp_path_factory.mktemp("models") / "tiny-gemma"
    config = Gemma3TextConfig(
        vocab_size=-(-len(storyteller_tokenizer) // 64) * 64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=7,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        sliding_window=16,
        query_pre_attn_scalar=16,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    Gemma3ForCausalLM(config).save_pretrained(folder)
    storyteller_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["llama", "gemma"])
def original(request: pytest.FixtureRequest, tiny_folder: Path, gemma_like: Path) -> Path:
    return tiny_folder if request.param == "llama" else gemma_like
