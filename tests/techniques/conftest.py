"""Tiny seeded models of the three shapes that every technique must handle, as subjects ready for change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from backend.recipe.facts import ModelFacts
from backend.techniques.base import CalibrationText, Subject
from backend.techniques.expertlayers import expert_layers, unstack

SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def llama(**changes: Any) -> PreTrainedModel:
    """A seeded Llama in evaluation mode; `changes` go into its config."""
    torch.manual_seed(5)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_key_value_heads": 4, **changes})).eval()


def gemma(**changes: Any) -> PreTrainedModel:
    """A seeded Gemma 3: one key-value head, two layers with a window of 16 and one without."""
    torch.manual_seed(6)
    special = {
        "num_key_value_heads": 1,
        "sliding_window": 16,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**SIZES, **special, **changes})).eval()


def moe(**changes: Any) -> PreTrainedModel:
    """A seeded Mixtral: four experts of 64 neurons, of which a token passes two."""
    torch.manual_seed(7)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64, "sliding_window": None}
    return MixtralForCausalLM(MixtralConfig(**{**SIZES, "num_key_value_heads": 4, **experts, **changes})).eval()


def as_subject(model: PreTrainedModel, name: str) -> Subject:
    """The model with its facts, on the CPU, with 64 tokens of text and 600 more to calibrate on."""
    config = model.config
    unstack(model)
    experts = [len(found) for found in expert_layers(model).values()]
    sliding = [kind for kind in getattr(config, "layer_types", None) or [] if kind == "sliding_attention"]
    facts = ModelFacts(
        name=name,
        architecture=config.model_type,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        ffn=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        vocab=config.vocab_size,
        context=config.max_position_embeddings,
        parameters=sum(p.numel() for p in model.parameters()),
        embedding_parameters=model.get_input_embeddings().weight.numel(),
        tied=config.tie_word_embeddings,
        sliding_window=config.sliding_window if sliding else None,
        sliding_layers=len(sliding),
        experts=max(experts, default=1),
        used_experts=config.num_experts_per_tok if experts else 1,
        expert_ffn=config.intermediate_size if experts else 0,
    )
    ids = torch.randint(1, config.vocab_size, (64,), generator=torch.Generator().manual_seed(7)).tolist()
    return Subject(model, None, facts, torch.device("cpu"), sample_ids=ids, read_text=_more_text(config.vocab_size))


def _more_text(vocab: int) -> Callable[[str, int], CalibrationText]:
    ids = torch.randint(1, vocab, (600,), generator=torch.Generator().manual_seed(8)).tolist()
    return lambda file, tokens: CalibrationText(ids[:tokens], file or "seeded tokens")


MODELS: dict[str, Callable[..., PreTrainedModel]] = {
    "llama": llama,
    "gqa": lambda **changes: llama(**{"num_key_value_heads": 2, **changes}),
    "gemma": gemma,
}


@pytest.fixture
def tiny_llama() -> Subject:
    """Multi-head attention: four heads, four key-value heads."""
    return as_subject(MODELS["llama"](), "tiny-llama")


@pytest.fixture
def tiny_gqa() -> Subject:
    """Grouped-query attention: four heads, two key-value heads."""
    return as_subject(MODELS["gqa"](), "tiny-gqa")


@pytest.fixture
def tiny_gemma() -> Subject:
    """One key-value head and sliding layers."""
    return as_subject(MODELS["gemma"](), "tiny-gemma")


@pytest.fixture
def tiny_moe() -> Subject:
    """Four experts, two a token."""
    return as_subject(moe(), "tiny-moe")


@pytest.fixture(params=sorted(MODELS))
def any_subject(request: pytest.FixtureRequest) -> Subject:
    """Each of the three tiny models in turn."""
    return as_subject(MODELS[request.param](), f"tiny-{request.param}")


@pytest.fixture
def build() -> Callable[..., Subject]:
    """Builds a tiny subject by its shape's name, with changes to its config."""

    def make(shape: str, **changes: Any) -> Subject:
        return as_subject((MODELS | {"moe": moe})[shape](**changes), f"tiny-{shape}")

    return make


@pytest.fixture
def logits() -> Callable[[Subject], Tensor]:
    """Logits (T, V) of a subject over its own 64 tokens in one call, with no cache."""

    def run(subject: Subject) -> Tensor:
        with torch.inference_mode():
            ids = torch.tensor([subject.sample_ids])
            return subject.model(input_ids=ids, use_cache=False).logits[0]

    return run


@pytest.fixture
def keep_threads() -> Iterator[None]:
    """Gives torch its threads back after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
