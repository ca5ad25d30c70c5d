"""The lesson: a training as a preset, with a sentence on what to look at."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from backend.recipe.base import Config, RecipeError
from backend.recipe.race import PRESETS
from backend.recipe.training import Training

LESSONS = PRESETS / "train"


class Lesson(Config):
    """A preset of the Train page."""

    title: str = Field(min_length=1, max_length=80)
    look_at: str = Field(min_length=1, max_length=400)
    training: Training


def all_lessons(folder: Path = LESSONS) -> dict[str, Lesson]:
    """Every lesson by its file's name.

    Raises:
        RecipeError: for a file that is not JSON, or does not validate.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = Lesson.read(json.loads(path.read_text(encoding="utf-8")), where=path.stem)
        except json.JSONDecodeError as error:
            raise RecipeError("preset", path.name, "a JSON file", f"Correct it: {error}.") from None
    return found
