"""Families of models: what a config does not say about the parts that its architecture has.

From the model classes of transformers. A family that is not here can be raced where transformers knows it, but its
parts cannot be counted from a config alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.recipe.facts import Task


@dataclass(frozen=True)
class Family:
    """What all models of an architecture have in common."""

    ffn_matrices: int = 3  # gate, up and down; 2 where there is no gate
    tied: bool = False  # whether the head is the embedding where the config is silent
    norms: int = 2  # vectors of the hidden size a layer; a norm with a bias counts twice
    head_norms: int = 0  # vectors of a head's size a layer: norms of queries and keys
    qkv_bias: bool = False
    all_bias: bool = False  # every matrix of a layer has one
    positions: bool = False  # a table of learned positions
    encoder: bool = False  # makes vectors of whole texts; its tables end in a norm, and it has no output head
    token_types: int = 0  # rows of the table that tells a first sentence from a second one


def _encoder(token_types: int) -> Family:
    """BERT and what is built like it."""
    return Family(
        ffn_matrices=2, tied=True, norms=4, all_bias=True, positions=True, encoder=True, token_types=token_types
    )


FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "mixtral": Family(),
    "granite": Family(),
    "olmo2": Family(head_norms=0),
    "phi3": Family(),
    "smollm3": Family(tied=True),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(head_norms=2),
    "qwen3_moe": Family(head_norms=2),
    "gemma": Family(tied=True),
    "gemma2": Family(tied=True, norms=4),
    "gemma3": Family(tied=True, norms=4, head_norms=2),
    "gemma3_text": Family(tied=True, norms=4, head_norms=2),
    "gpt2": Family(ffn_matrices=2, tied=True, norms=4, all_bias=True, positions=True),
    "gpt_neox": Family(ffn_matrices=2, norms=4, all_bias=True),
    "opt": Family(ffn_matrices=2, tied=True, norms=4, all_bias=True, positions=True),
    "starcoder2": Family(ffn_matrices=2, tied=True, norms=4, all_bias=True),
    **dict.fromkeys(("bert", "electra"), _encoder(2)),
    **dict.fromkeys(("camembert", "roberta", "xlm-roberta"), _encoder(1)),
    **dict.fromkeys(("distilbert", "mpnet"), _encoder(0)),
}


def task_of(architecture: str, config: dict[str, Any]) -> Task:
    """What a model with this config is for: a BERT that is told to be a decoder is one."""
    return "encoder" if family(architecture).encoder and not config.get("is_decoder") else "decoder"


def family(architecture: str) -> Family:
    """The family of an architecture, or a Llama's where it is not known: most decoders are built like it."""
    return FAMILIES.get(architecture, FAMILIES["llama"])
