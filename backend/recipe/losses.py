"""The losses: what a student is held against, each with a weight."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from backend.recipe.base import Config, RecipeError
from backend.recipe.facts import ModelFacts, Task

Direction = Literal["forward", "reverse", "jsd"]
FIELDS = ("logits", "labels", "hidden", "attention", "embedding")
TAUGHT = ("logits", "hidden", "attention", "embedding")  # those for which a teacher is needed
_OF_TASK: dict[str, Task] = {"logits": "decoder", "labels": "decoder", "embedding": "encoder"}
_MISSING = {
    "decoder": "a model of sentence vectors: a decoder makes none",
    "encoder": "a decoder: an encoder of sentences predicts no tokens",
}


class Losses(Config):
    """What is minimised: a weighted sum, each part a mean over tokens, or over sentences."""

    logits: float = Field(1.0, ge=0.0, le=1000.0, description="KL from the teacher's distribution, in nats")
    temperature: float = Field(1.0, gt=0.0, le=100.0, description="of both distributions; the KL is taken times T x T")
    direction: Direction = Field(
        "forward", description="KL(teacher, student), KL(student, teacher), or each to a mix of both (jsd)"
    )
    beta: float = Field(0.5, gt=0.0, lt=1.0, description="the teacher's share of the mix, where there is one")
    labels: float = Field(0.0, ge=0.0, le=1000.0, description="cross-entropy on the text's own next tokens")
    hidden: float = Field(
        0.0, ge=0.0, le=1000.0, description="MSE between hidden states, as a share of the teacher's mean square"
    )
    attention: float = Field(
        0.0, ge=0.0, le=1000.0, description="distance of attention maps; eager attention runs while it is asked for"
    )
    maps: Literal["kl", "mse"] = Field("kl", description="how attention maps are compared")
    embedding: float = Field(0.0, ge=0.0, le=1000.0, description="distance of an encoder's sentence vectors")
    vectors: Literal["cosine", "mse"] = Field("cosine", description="how sentence vectors are compared")

    @property
    def taught(self) -> bool:
        """Whether a teacher is needed."""
        return any(getattr(self, name) for name in TAUGHT)

    @property
    def inside(self) -> bool:
        """Whether layers are compared, and not only what comes out."""
        return bool(self.hidden or self.attention)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(getattr(self, name) for name in FIELDS):
            remedy = "Give one of them a weight: logits to learn from a teacher, labels from the text."
            raise RecipeError("losses", "every weight is 0", "a loss with a weight above 0", remedy)
        return self

    def check(self, facts: ModelFacts) -> None:
        """Refuse a loss that this kind of model has no output for.

        Raises:
            RecipeError: for logits or labels of an encoder, or sentence vectors of a decoder.
        """
        for name, task in _OF_TASK.items():
            if getattr(self, name) and facts.task != task:
                remedy = f"Set losses.{name} to 0" + ("." if task == "encoder" else ", and losses.embedding to 1.")
                raise RecipeError(f"losses.{name}", getattr(self, name), _MISSING[facts.task], remedy)
