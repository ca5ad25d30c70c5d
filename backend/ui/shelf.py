"""The shelf of presets: those that ship, and those that this person saved."""

from __future__ import annotations

import json
import re
from pathlib import Path

from backend.journal import state_folder
from backend.recipe.base import RecipeError
from backend.recipe.race import PRESETS, Preset, Race, read_preset

OWN = "own/"  # how the names of saved presets begin


def own_folder() -> Path:
    """Where saved presets lie."""
    return state_folder() / "presets"


def names() -> dict[str, Path]:
    """Every preset's file by its name, those that ship first."""
    shipped = {path.stem: path for path in sorted(PRESETS.glob("*.json"))}
    own = {OWN + path.stem: path for path in sorted(own_folder().glob("*.json"))}
    return shipped | own


def load(name: str) -> Preset:
    """One preset.

    Raises:
        RecipeError: when there is none of that name, or its file does not validate.
    """
    known = names()
    if name not in known:
        raise RecipeError("preset", name, f"one of {', '.join(known) or 'none yet'}", "Correct the preset's name.")
    return read_preset(known[name])


def titles() -> dict[str, str]:
    """What the menu shows; a file that cannot be read keeps its name, so that choosing it says what is wrong."""
    shown = {}
    for name, path in names().items():
        try:
            shown[name] = read_preset(path).title
        except RecipeError:
            shown[name] = f"{path.stem} (cannot be read)"
    return shown


def save(title: str, race: Race) -> str:
    """Write a preset of one's own and return its name.

    Raises:
        RecipeError: for a title with no letter or digit in it, or one that is taken.
        OSError: when the file cannot be written.
    """
    stem = re.sub(r"[\W_]+", "-", title.lower()).strip("-")[:60]
    if not stem:
        raise RecipeError("title", title, "a title with letters or digits", "Write what the preset shows.")
    path = own_folder() / f"{stem}.json"
    if path.exists():
        raise RecipeError("title", title, "a title that is not taken", "Choose another title.")
    preset = Preset.read({"title": title.strip()[:80], "look_at": "Saved from the Bench.", "race": race.model_dump()})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(preset.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    return OWN + stem
