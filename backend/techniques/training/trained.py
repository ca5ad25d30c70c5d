"""A trained model in the place of the original: what a training has made, raced beside what it was made from."""

from __future__ import annotations

from torch import nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.trained import Trained
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique


@technique(Trained)
class TrainedModel:
    """Loads the other model and puts it where the original was, which is freed."""

    def apply(self, subject: Subject, switch: Trained) -> None:
        """Replace the model.

        Raises:
            RecipeError: when no second model can be loaded here, or it reads other tokens or does another task.
        """
        field = f"switches.{switch.kind}.name"
        if subject.load_other is None:
            raise RecipeError(field, switch.name, "a place where a second model can be loaded", "Switch it off.")
        other = subject.load_other(switch.name)
        if other.facts.task != subject.facts.task or not _same_tokens(subject, other):
            allowed = f"a model with the tokenizer and the task of {subject.facts.name}"
            raise RecipeError(field, switch.name, allowed, "Choose one that was trained from this model.")
        nn.Module.to(other.model, subject.device)
        subject.notes[switch.kind] = {"before": _parameters(subject.model)}
        subject.model, subject.facts, subject.pooling = other.model, other.facts, other.pooling

    def read_back(self, subject: Subject, switch: Trained) -> Effect:
        """Look at the model that is there now."""
        notes = subject.notes.get(switch.kind)
        if notes is None:
            return Effect(switch.kind, took_effect=False, summary="the model is still the original")
        after = _parameters(subject.model)
        return Effect(
            switch.kind,
            took_effect=True,
            summary=f"{subject.facts.name} in the place of the original, {after / 1e6:.3g}M parameters",
            facts={"parameters": after, "original_parameters": notes["before"]},
        )


def _same_tokens(subject: Subject, other: Subject) -> bool:
    """Whether both read a text as the same tokens; models without a tokenizer are known by their vocabularies."""
    if subject.tokenizer is None or other.tokenizer is None:
        return subject.facts.vocab == other.facts.vocab
    return subject.tokenizer.get_vocab() == other.tokenizer.get_vocab()


def _parameters(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())
