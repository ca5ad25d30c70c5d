"""The student's own text, written at the beginning of a step from the student as it is then."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from backend.recipe.base import RecipeError
from backend.recipe.methods.on_policy import OnPolicy
from backend.techniques.base import Subject
from backend.techniques.coach import Coach, Pupil, coach

OWN = "on_policy_share"  # of the tokens of the last batch, as noted for the live view


@coach(OnPolicy)
class OnPolicyText(Coach):
    """On-policy distillation: Agarwal et al. 2024, algorithm 1; the trainer's losses are the divergence."""

    def begin(self, pupil: Pupil, method: OnPolicy) -> None:
        """Refuse what would teach the student its own mistakes.

        Raises:
            RecipeError: without a teacher, or with labels, which its own words are not.
        """
        losses = pupil.asked.losses
        if not losses.logits:
            remedy = "Give losses.logits a weight, or leave on_policy out."
            raise RecipeError("losses.logits", losses.logits, "a teacher that scores what is written", remedy)
        if losses.labels:
            remedy = "Set losses.labels to 0, or leave on_policy out."
            raise RecipeError("losses.labels", losses.labels, "0: the student's own words are no labels", remedy)

    def batch(self, pupil: Pupil, method: OnPolicy, ids: Tensor, step: int) -> Tensor:
        """The text's tokens, or from a place on the student's own. The trainer has seeded what is drawn here."""
        own = bool(torch.rand(()) < method.share)
        given = max(1, min(round(method.prompt * ids.shape[1]), ids.shape[1] - 1))
        pupil.notes[OWN] = 1 - given / ids.shape[1] if own else 0.0
        return written(pupil.subject, ids[:, :given], ids.shape[1], method.temperature) if own else ids

    def told(self, pupil: Pupil, method: OnPolicy) -> dict[str, float]:
        """The share of the step's tokens that the student wrote."""
        return {"own_text": float(pupil.notes.get(OWN, 0.0))}


@torch.no_grad()
def written(subject: Subject, prompts: Tensor, length: int, temperature: float) -> Tensor:
    """Prompts (B, P) with the model's own tokens behind them (B, length), drawn at a temperature.

    It writes on after an end of text, as the windows of a text do.
    """
    model = subject.model
    was = model.training
    model.eval()  # with the cache, which gradient checkpointing forbids in training
    try:
        cache, ids, fed = DynamicCache(config=model.config), prompts, prompts
        while ids.shape[1] < length:
            logits = model(input_ids=fed, cache=cache, use_cache=True, logits_to_keep=1).logits[:, -1]  # (B, V)
            fed = torch.multinomial(torch.softmax(logits.float() / temperature, dim=-1), 1)
            ids = torch.cat([ids, fed], dim=1)
    finally:
        model.train(was)
    return ids
