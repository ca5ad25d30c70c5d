"""The feed-forward parts of a model of experts: their router, their experts, and what the router chooses on a text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backend.recipe.base import RecipeError
from backend.techniques.anatomy import stack, text_config
from backend.techniques.base import Subject
from backend.techniques.expertlayers import Experts

CALIBRATION_TOKENS = 512
COUNTS = ("num_local_experts", "num_experts")  # a config's word for experts a layer
KNOWN = "a mixture of gated experts as Mixtral, Qwen-MoE and OLMoE build it"


def routed_parts(subject: Subject, kind: str) -> list[Any]:
    """Every layer's part with `gate`, a router of transformers, and `experts`.

    Raises:
        RecipeError: naming the switch `kind`, when no layer has experts that are known.
    """
    parts = [getattr(layer, "mlp", None) for layer in stack(subject.model, kind)]
    found = [part for part in parts if isinstance(getattr(part, "experts", None), Experts)]
    if not found:
        remedy = "Switch it off, or load a model of experts."
        raise RecipeError(f"switches.{kind}", type(subject.model).__name__, KNOWN, remedy)
    return found


def set_top_k(subject: Subject, parts: list[Any], count: int) -> None:
    """Let every router choose so many."""
    for part in parts:
        part.gate.top_k = count
        if hasattr(part, "top_k"):
            part.top_k = count
    text_config(subject.model).num_experts_per_tok = count


def set_count(subject: Subject, parts: list[Any], count: int) -> None:
    """Make the numbers of experts true that router and config state."""
    for part in parts:
        part.gate.num_experts = count
    config = text_config(subject.model)
    for name in COUNTS:
        if hasattr(config, name):
            setattr(config, name, count)


@torch.inference_mode()
def usage(subject: Subject, parts: list[Any]) -> Tensor:
    """Tokens that each expert gets of the subject's text, (layers, experts), counts.

    Raises:
        RecipeError: when there is no text.
    """
    ids = subject.sample_ids[:CALIBRATION_TOKENS]
    if not ids:
        remedy = "Load the model with its tokenizer, or choose by weights or at random."
        raise RecipeError("calibration", "no text", "some text to count tokens on", remedy)
    subject.model(input_ids=torch.tensor([ids], device=subject.device), use_cache=False, logits_to_keep=1)
    return torch.stack([torch.bincount(part.experts.picked.flatten(), minlength=len(part.experts)) for part in parts])


def passed(subject: Subject, parts: list[Any]) -> list[int]:
    """How many experts one token really goes to, layer by layer."""
    with torch.inference_mode():
        subject.model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=subject.device), use_cache=False)
    return [part.experts.picked.shape[1] for part in parts]
