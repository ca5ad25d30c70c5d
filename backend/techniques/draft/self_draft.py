"""Self-speculation: some of the model's own layers guess, all of them verify.

Zhang et al. 2024 (Draft & Verify) skip layers in the middle; Elhoushi et al. 2024 (LayerSkip) leave after the first
few. Both papers' models were chosen or trained for it; on any other the acceptance shows how much that mattered.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.recipe.base import RecipeError
from backend.recipe.switches.draft import SelfDraft
from backend.techniques.anatomy import stack
from backend.techniques.base import Effect, Subject
from backend.techniques.draft.own_layers import OwnLayersProposer, SharedCacheProposer, few_layers
from backend.techniques.draft.plan import drafting, seen_facts, tail, took
from backend.techniques.draft.proposer import DraftModelProposer, vocab_rows
from backend.techniques.registry import technique

CALIBRATION_TOKENS = 256


@technique(SelfDraft)
class SelfDrafting:
    """Makes a model of some of the layers and puts it into the subject's plan."""

    def apply(self, subject: Subject, switch: SelfDraft) -> None:
        """Make the engine verify what some of the layers guess.

        Raises:
            RecipeError: for layers that the model has not, all of them, an unknown build, a lack of text to choose
                them by, or no tree where one is asked for.
        """
        layers = len(stack(subject.model, switch.kind))
        kept = choose(subject, switch, layers)
        if len(kept) >= layers or kept[-1] >= layers:
            allowed = f"fewer than the model's {layers} layers"
            asked = switch.layers or str(switch.keep)
            raise RecipeError(f"switches.{switch.kind}.keep", asked, allowed, "Keep fewer layers.")
        pace = drafting(subject, switch)
        draft = few_layers(subject, kept, switch.kind)
        rest = (switch.tokens, vocab_rows(subject), switch.branches, pace)
        shared = switch.cache == "shared"
        subject.plan.proposer = SharedCacheProposer(draft, kept, *rest) if shared else OwnLayersProposer(draft, *rest)
        subject.notes[switch.kind] = {"kept": kept}

    def read_back(self, subject: Subject, switch: SelfDraft) -> Effect:
        """Look at the proposer, count its layers, and see that its weights are the model's own tensors."""
        proposer = subject.plan.proposer
        if not isinstance(proposer, OwnLayersProposer):
            return Effect(switch.kind, took_effect=False, summary="none of its own layers guess in the decode plan")
        held = len(stack(proposer.draft.model, switch.kind))
        total = len(stack(subject.model, switch.kind))
        shared = isinstance(proposer, SharedCacheProposer)
        kept = " ".join(map(str, subject.notes.get(switch.kind, {}).get("kept", ())))
        right = held == switch.kept_of(total) and shared == (switch.cache == "shared")
        return Effect(
            switch.kind,
            took_effect=took(subject, switch) and right and new_weights(subject, proposer) == 0,
            summary=f"layers {kept} of {total} guess {tail(subject, switch)}",
            facts=seen_facts(subject)
            | {
                "layers": kept,
                "layers_of": total,
                "cache": "shared" if shared else "own",
                "draft_weights_bytes": new_weights(subject, proposer),
            },
        )


def new_weights(subject: Subject, proposer: DraftModelProposer) -> int:
    """Bytes of the draft's weights that are not the model's own tensors."""
    ours = {weight.data_ptr() for weight in subject.model.parameters()}
    strange = [weight for weight in proposer.draft.model.parameters() if weight.data_ptr() not in ours]
    return sum(weight.nbytes for weight in strange)


def choose(subject: Subject, switch: SelfDraft, layers: int) -> list[int]:
    """The layers that guess, in order.

    Raises:
        RecipeError: when they are to be ranked and there is no text.
    """
    if switch.named:
        return list(switch.named)
    keep = min(switch.keep, layers)
    if switch.which == "first":
        return list(range(keep))
    if switch.which == "spread":
        return sorted({round(place * (layers - 1) / max(1, keep - 1)) for place in range(keep)})
    if not subject.sample_ids:
        remedy = "Choose 'first' or 'spread', or name the layers."
        raise RecipeError(f"switches.{switch.kind}.which", switch.which, "text to rank the layers on", remedy)
    ranked = sorted(range(layers), key=change(subject, switch.kind).tolist().__getitem__, reverse=True)
    return sorted(ranked[:keep])


@torch.inference_mode()
def change(subject: Subject, kind: str) -> Tensor:
    """How much each layer changes what passes through it: 1 - cos(input, output), mean over tokens (L,)."""
    states: list[Tensor] = []  # (T, hidden): what enters each layer, and what leaves the last

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not states:
            states.append((args[0] if args else kwargs["hidden_states"])[0].float())
        states.append((output[0] if isinstance(output, tuple) else output)[0].float())

    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in stack(subject.model, kind)]
    try:
        ids = torch.tensor([subject.sample_ids[:CALIBRATION_TOKENS]], device=subject.device)
        subject.model(input_ids=ids, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    pairs = pairwise(states)
    return torch.stack([1 - F.cosine_similarity(before, after, dim=-1).mean() for before, after in pairs])
