"""Speculative decoding: tokens guessed cheaply and verified by the model in one call. Lossless."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from backend.recipe.facts import STORYTELLERS, ModelFacts
from backend.recipe.named import read_layers, write_layers
from backend.recipe.switch import Group, Switch

Length = Literal["fixed", "adaptive"]
USUAL = 4


class Drafting(Switch):
    """What every way to guess has in common: how many tokens, and how many candidates for each."""

    group: ClassVar[Group] = Group.DRAFT
    order: ClassVar[int] = 500

    tokens: int = Field(USUAL, ge=1, le=32, description="tokens guessed in a row, at most")
    length: Length = Field(
        "fixed",
        description="fixed: as many every round; adaptive: as many as pay by costs and acceptance seen, or none",
    )
    branches: int = Field(
        1, ge=1, le=4, description="candidates for a place, verified in one call as a tree; 1 is a chain"
    )

    @property
    def title_of_guess(self) -> str:
        """What guesses, in a word or two."""
        return self.title.lower()

    @property
    def label(self) -> str:
        tokens = "" if self.tokens == USUAL else f" of {self.tokens}"
        wide = "" if self.branches == 1 else f", {self.branches} branches"
        return self.title_of_guess + tokens + wide + (", adaptive" if self.length == "adaptive" else "")

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.tokens >= facts.context:
            return f"fewer guesses than the model's context of {facts.context} tokens"
        return None


class PromptLookup(Drafting):
    """Guesses are copied from earlier text that ended in the same words."""

    kind: ClassVar[str] = "prompt_lookup"
    title: ClassVar[str] = "Prompt lookup"
    summary: ClassVar[str] = "Guesses by copying earlier text: free, lossless, and a gain only where text repeats."
    source: ClassVar[str] = "Saxena 2023, prompt lookup decoding"

    ngram: int = Field(2, ge=1, le=8, description="tokens that must match before a copy, at most")


class DraftModel(Drafting):
    """Guesses come from a smaller model with the same vocabulary."""

    kind: ClassVar[str] = "draft_model"
    title: ClassVar[str] = "Draft model"
    summary: ClassVar[str] = (
        "A small model guesses and the large one verifies: lossless, faster while guesses are good."
    )
    source: ClassVar[str] = "Leviathan et al. 2023; Chen et al. 2023"

    model: str = Field(
        "storyteller-draft",
        min_length=1,
        max_length=500,
        description="a smaller model with the same vocabulary: a name, a Hub id, or a folder, for example with layers "
        "dropped and saved",
    )

    @property
    def title_of_guess(self) -> str:
        return "draft"

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.model == "storyteller-draft" and facts.name not in STORYTELLERS:
            return f"a draft with the vocabulary of {facts.name}; storyteller-draft knows the storyteller's only"
        return super().refuse(facts)


class SelfDraft(Drafting):
    """Guesses come from some of the model's own layers."""

    kind: ClassVar[str] = "self_draft"
    title: ClassVar[str] = "Some of its own layers"
    summary: ClassVar[str] = (
        "The model guesses with a few of its layers and verifies with all: lossless, and no second model is held."
    )
    source: ClassVar[str] = "Zhang et al. 2024, Draft & Verify; Elhoushi et al. 2024, LayerSkip (early exit)"

    keep: int = Field(2, ge=1, le=1000, description="how many layers guess")
    which: Literal["first", "spread", "nearest"] = Field(
        "first",
        description="first: an early exit; spread: evenly, the last included; nearest: without those that change their "
        "input least",
    )
    layers: str = Field(
        "",
        max_length=200,
        description="the layers that guess, by hand; they overrule the two above",
        examples=["0-2 7"],
    )
    cache: Literal["shared", "own"] = Field(
        "shared",
        description="shared: guesses attend to what the whole model cached; own: the few layers are a model of their "
        "own that reads the text for itself",
    )

    @field_validator("layers")
    @classmethod
    def _in_order(cls, value: str) -> str:
        return write_layers(read_layers(value, "switches.self_draft.layers"))

    @property
    def title_of_guess(self) -> str:
        kept = len(self.named)
        return f"{kept or self.keep} own layer{'s' if (kept or self.keep) > 1 else ''} as draft"

    @property
    def named(self) -> tuple[int, ...]:
        """The layers that were chosen by hand."""
        return read_layers(self.layers, "switches.self_draft.layers")

    def kept_of(self, layers: int) -> int:
        """How many of so many layers guess."""
        return min(len(self.named) or self.keep, layers)

    def refuse(self, facts: ModelFacts) -> str | None:
        if above := [layer for layer in self.named if layer >= facts.layers]:
            return f"layers 0 to {facts.layers - 1}: there is no layer {above[0]}"
        if self.kept_of(facts.layers) >= facts.layers:
            return f"1 to {facts.layers - 1} layers: with all {facts.layers} a guess costs what the model does"
        return super().refuse(facts)
