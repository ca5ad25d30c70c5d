"""A draft model: a smaller model with the same vocabulary guesses (Leviathan et al. 2023; Chen et al. 2023)."""

from __future__ import annotations

from torch import nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.draft import DraftModel
from backend.techniques.base import Effect, Subject
from backend.techniques.draft.plan import drafting, seen_facts, tail, took
from backend.techniques.draft.proposer import DraftModelProposer, vocab_rows
from backend.techniques.registry import technique


@technique(DraftModel)
class ModelDrafting:
    """Loads the draft and puts it into the subject's plan."""

    def apply(self, subject: Subject, switch: DraftModel) -> None:
        """Make the engine verify a draft's guesses.

        Raises:
            RecipeError: when no second model can be loaded here, the two vocabularies differ, or no tree can be
                verified where one is asked for.
        """
        field = f"switches.{switch.kind}.model"
        if subject.load_other is None:
            remedy = "Switch the draft off, or use prompt lookup."
            raise RecipeError(field, switch.model, "a place where a second model can be loaded", remedy)
        pace = drafting(subject, switch)
        draft = subject.load_other(switch.model)
        if difference := _difference(subject, draft):
            allowed = f"a draft with the vocabulary of {subject.facts.name}; {difference}"
            raise RecipeError(field, switch.model, allowed, "Pick a smaller model of the same family.")
        if switch.tokens >= draft.facts.context:
            allowed = f"fewer guesses than the draft's context of {draft.facts.context} tokens"
            raise RecipeError(f"switches.{switch.kind}.tokens", switch.tokens, allowed, "Guess fewer tokens.")
        nn.Module.to(draft.model, subject.device)  # guesses are verified where the model is
        draft.device = subject.device
        proposer = DraftModelProposer(draft, switch.tokens, vocab_rows(subject), switch.branches, pace)
        subject.plan.proposer = proposer

    def read_back(self, subject: Subject, switch: DraftModel) -> Effect:
        """Look at the proposer in the plan, at the model in it, and whether it guessed in the run."""
        proposer = subject.plan.proposer
        if not isinstance(proposer, DraftModelProposer) or proposer.source != "draft":
            return Effect(switch.kind, took_effect=False, summary="no draft model in the decode plan")
        draft = proposer.draft
        parameters = sum(weight.numel() for weight in draft.model.parameters())
        return Effect(
            switch.kind,
            took_effect=took(subject, switch),
            summary=f"{proposer.name} ({parameters / 1e6:.3g}M) guesses {tail(subject, switch)}",
            facts=seen_facts(subject)
            | {
                "draft_parameters": parameters,
                "draft_weights_bytes": proposer.weights_bytes,
                "draft_dtype": str(draft.model.dtype).removeprefix("torch."),
                "draft_device": str(draft.device),
                "draft_context": draft.facts.context,
                "draft_vocab": vocab_rows(draft),
                "vocab": vocab_rows(subject),
                "tokenizer_entries": len(draft.tokenizer) if draft.tokenizer else None,
            },
        )


def _difference(subject: Subject, draft: Subject) -> str | None:
    """What sets the two vocabularies apart, or None. Rows beyond the tokenizer's last entry are padding."""
    ours, theirs = subject.facts.name, draft.facts.name
    widths = f"{ours} has {vocab_rows(subject):,} rows and {theirs} {vocab_rows(draft):,}"
    if subject.tokenizer is None or draft.tokenizer is None:
        return None if vocab_rows(subject) == vocab_rows(draft) else widths
    mine, other = subject.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    if mine != other:
        shared = len(mine.items() & other.items())
        return f"{ours} has {len(mine):,} entries, {theirs} {len(other):,}, and {shared:,} are the same"
    least = max(mine.values()) + 1
    return None if min(vocab_rows(subject), vocab_rows(draft)) >= least else f"{widths}, for {least:,} tokens"
