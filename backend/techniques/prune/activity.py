"""What really flows into a matrix on a little text: the measure of what may go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backend.techniques.base import Subject

CALIBRATION_TOKENS = 512


@torch.inference_mode()
def measure(
    subject: Subject, linears: Sequence[nn.Linear], score: Callable[[nn.Linear, Tensor], Tensor]
) -> list[Tensor]:
    """Run the subject's text through the model once, and score what enters each of these layers.

    Args:
        score: gets a layer and its input (T, in_features) in float32, gives any tensor; only that is kept.

    Returns:
        One score a layer, in the order of `linears`.
    """
    scores: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Linear):
            scores[module] = score(module, args[0].flatten(0, -2).float()).clone()

    hooks = [linear.register_forward_pre_hook(record) for linear in linears]
    ids = subject.sample_ids[:CALIBRATION_TOKENS]
    try:
        subject.model(input_ids=torch.tensor([ids], device=subject.device), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return [scores[linear] for linear in linears]


def chosen_by(subject: Subject) -> str:
    """By what parts are chosen, in words for the receipt."""
    count = len(subject.sample_ids[:CALIBRATION_TOKENS])
    return f"their output on {count} tokens" if count else "the norm of their weights, since there is no text"
