"""The tokens that a model is likeliest to write, on a little text of its own kind."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.recipe.base import RecipeError
from backend.recipe.stores import rows_of
from backend.techniques.base import Subject
from backend.techniques.calibrate import WINDOW, text_of

TOKENS = 1024
ROWS = 32  # of which the probabilities are held at a time: 34 MB with a vocabulary of 262,144


def likely_tokens(subject: Subject, share: float) -> Tensor:
    """Ids (R,) of the share of the vocabulary with the highest mean probability, ascending.

    Raises:
        RecipeError: where there is no text.
    """
    ids = text_of(subject, "", TOKENS).ids
    if not ids:
        raise RecipeError(
            "switches.mixed_precision.levels", "head:split", "a model with text of its own kind", "Give the head int8."
        )
    means = mean_probabilities(subject, ids)
    return means.topk(rows_of(share, len(means))).indices.sort().values


@torch.inference_mode()
def mean_probabilities(subject: Subject, ids: list[int]) -> Tensor:
    """Mean probability (V,) of each token over the places of a text."""
    total: Tensor | float = 0.0
    for start in range(0, len(ids), WINDOW):
        window = torch.tensor([ids[start : start + WINDOW]], device=subject.device)
        logits = subject.model(input_ids=window, use_cache=False).logits[0]  # (T, V)
        for rows in logits.split(ROWS):
            total = total + rows.float().softmax(-1).sum(0)
    return torch.as_tensor(total) / len(ids)
