"""Text of the student's own."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.method import Method


class OnPolicy(Method):
    """In a share of the steps the student goes on with the text by itself, and the teacher scores what it wrote."""

    kind: ClassVar[str] = "on_policy"
    title: ClassVar[str] = "The student's own text"
    summary: ClassVar[str] = (
        "In some steps the student writes and the teacher scores it, so that it learns where its own words lead; "
        "writing takes longer than reading."
    )
    source: ClassVar[str] = "Agarwal et al. 2024 (GKD)"

    share: float = Field(0.5, gt=0.0, le=1.0, description="of the steps")
    prompt: float = Field(0.5, gt=0.0, lt=1.0, description="share of a window that is the text's, before its own words")
    temperature: float = Field(1.0, gt=0.0, le=10.0, description="at which it writes")

    @property
    def label(self) -> str:
        """A few words for the name of a run."""
        return f"its own text in {self.share:.0%} of the steps"

    def refuse(self, facts: ModelFacts) -> str | None:
        """The reason why a model cannot be trained so, or None."""
        return "a decoder: an encoder writes nothing" if facts.task == "encoder" else None
