"""Speculative decoding: tokens guessed cheaply and verified by the model in one call. Lossless."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backend.recipe.facts import STORYTELLERS, ModelFacts
from backend.recipe.switch import Group, Switch


class PromptLookup(Switch):
    """Guesses are copied from earlier text that ended in the same words."""

    kind: ClassVar[str] = "prompt_lookup"
    group: ClassVar[Group] = Group.DRAFT
    order: ClassVar[int] = 500
    title: ClassVar[str] = "Prompt lookup"
    summary: ClassVar[str] = "Guesses by copying earlier text: free, lossless, and a gain only where text repeats."
    source: ClassVar[str] = "Saxena 2023, prompt lookup decoding"

    tokens: int = Field(4, ge=1, le=32, description="tokens guessed at a time")
    ngram: int = Field(2, ge=1, le=8, description="tokens that must match before a copy, at most")

    @property
    def label(self) -> str:
        return "prompt lookup" + ("" if self.tokens == 4 else f" of {self.tokens}")


class DraftModel(Switch):
    """Guesses come from a smaller model with the same vocabulary."""

    kind: ClassVar[str] = "draft_model"
    group: ClassVar[Group] = Group.DRAFT
    order: ClassVar[int] = 500
    title: ClassVar[str] = "Draft model"
    summary: ClassVar[str] = (
        "A small model guesses and the large one verifies: lossless, faster while guesses are good."
    )
    source: ClassVar[str] = "Leviathan et al. 2023; Chen et al. 2023"

    model: str = Field(
        "storyteller-draft", min_length=1, max_length=500, description="a smaller model, same vocabulary"
    )
    tokens: int = Field(4, ge=1, le=32, description="tokens guessed at a time")

    @property
    def label(self) -> str:
        return "draft" + ("" if self.tokens == 4 else f" of {self.tokens}")

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.model == "storyteller-draft" and facts.name not in STORYTELLERS:
            return f"a draft with the vocabulary of {facts.name}; storyteller-draft knows the storyteller's only"
        return None
