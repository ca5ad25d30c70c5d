"""A limit to the tokens that one expert takes of a call."""

from __future__ import annotations

import torch

from backend.recipe.switches.experts import ExpertCapacity
from backend.techniques.base import Effect, Subject
from backend.techniques.experts.routed import CALIBRATION_TOKENS, routed_parts
from backend.techniques.registry import technique


@technique(ExpertCapacity)
class LimitedExperts:
    """Each expert takes ceil(factor * tokens * k / experts) tokens of a call, the first to come (Fedus et al. 2021).

    What is dropped passes by on the residual stream alone. A call of one token drops nothing, so the text that is
    written suffers from what was dropped of its prompt and of nothing else.
    """

    def apply(self, subject: Subject, switch: ExpertCapacity) -> None:
        """Set the limit in every layer.

        Raises:
            RecipeError: for an unknown build.
        """
        for part in routed_parts(subject, switch.kind):
            part.experts.capacity = switch.factor

    @torch.inference_mode()
    def read_back(self, subject: Subject, switch: ExpertCapacity) -> Effect:
        """Read some text in one call and count the pairs of token and expert that were dropped."""
        parts = routed_parts(subject, switch.kind)
        ids = subject.sample_ids[:CALIBRATION_TOKENS] or list(range(min(64, subject.facts.vocab)))
        subject.model(input_ids=torch.tensor([ids], device=subject.device), use_cache=False)
        pairs = sum(part.experts.picked.numel() for part in parts)
        dropped = sum(part.experts.dropped for part in parts)
        limits = {part.experts.capacity for part in parts}
        return Effect(
            kind=switch.kind,
            took_effect=limits == {switch.factor},
            summary=f"{dropped / pairs:.1%} of the choices dropped in a call of {len(ids)} tokens, none in decode",
            facts={"factor": next(iter(limits)), "share_dropped": dropped / pairs, "tokens": len(ids)},
        )
