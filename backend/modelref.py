"""The reference: which model is meant, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.recipe.base import RecipeError
from backend.recipe.facts import STORYTELLERS

Kind = Literal["shipped", "fetched", "hub", "folder", "gguf", "shape"]


@dataclass(frozen=True)
class ModelRef:
    """One model by the name that a person gave. `path` is a folder or a GGUF file, None for a Hub id or a shape."""

    name: str
    kind: Kind
    path: Path | None = None
    revision: str | None = None  # of a Hub id
    origin: str = ""  # of a saved model: the model that it was made from at first

    @property
    def tells_stories(self) -> bool:
        """Whether it is a shipped model, or was made of one: it knows the stories of this project's own generator."""
        return self.kind == "shipped" or self.origin in STORYTELLERS

    @property
    def place(self) -> Path:
        """The path of a model that lies on this machine."""
        if self.path is None:
            raise TypeError(f"{self.name} ({self.kind}) has no path")
        return self.path


def bad_model(value: object, allowed: str, remedy: str) -> RecipeError:
    """The error for a model that cannot be used."""
    return RecipeError("model", value, allowed, remedy)
