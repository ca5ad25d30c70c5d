"""What is minimised: parts that a student's output is held against, each a mean over tokens, in nats."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.recipe.training import Losses


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of softened distributions, times T squared so that gradients keep their size.

    Args:
        student, teacher: logits (N, V); a vocabulary that is padded on one side is cut to what both have.
    Source: Hinton et al. 2015, section 2.
    """
    width = min(student.shape[-1], teacher.shape[-1])
    ours = torch.log_softmax(student[:, :width].float() / temperature, dim=-1)
    theirs = torch.log_softmax(teacher[:, :width].float() / temperature, dim=-1)
    return nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def label_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (N, V) on the text's own next tokens (N,)."""
    return nn.functional.cross_entropy(student.float(), labels)


def loss_parts(losses: Losses, student: Tensor, teacher: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
    """The parts that have a weight, before they are weighted; logits are (B, T, V), labels (B, T)."""
    rows, parts = student.flatten(0, 1), {}
    if losses.logits and teacher is not None:
        parts["logits"] = soft_loss(rows, teacher.flatten(0, 1), losses.temperature)
    if losses.labels:
        parts["labels"] = label_loss(rows, labels.flatten())
    return parts
