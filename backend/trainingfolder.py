"""Where a training keeps what it would lose if it were killed, and whose that is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from backend.journal import state_folder
from backend.recipe.base import RecipeError
from backend.recipe.training import Training

STATE, RECIPE = "state.json", "training.json"
_WHOLE = re.compile(r"checkpoint-(\d+)")


def training_folder(name: str) -> Path:
    """The folder of the checkpoints of the training that makes the model of that name."""
    return state_folder() / "training" / name


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, the latest last."""
    found = [(int(match[1]), path) for path in folder.glob("*") if (match := _WHOLE.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def last_state(name: str) -> dict[str, Any] | None:
    """What the last checkpoint of a training says of itself, or None."""
    found = checkpoints(training_folder(name))
    return dict(json.loads((found[-1] / STATE).read_text(encoding="utf-8"))) if found else None


def check_resumed(asked: Training) -> int:
    """The step at which a training would go on; 0 where it has not begun. Writes nothing.

    Raises:
        RecipeError: when another recipe is half done under this name, with what differs.
    """
    folder = training_folder(asked.name)
    if not checkpoints(folder) or not (folder / RECIPE).is_file():
        return 0
    held = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    now = asked.model_dump(mode="json")
    if held != now:
        changed = _changed(held, now)
        remedy = f"Put it back, choose another name, or remove the folder {folder} to begin anew."
        field, was, given = changed[0]
        allowed = f"{was!r}, as the training that is half done under the name {asked.name!r} was begun with"
        raise RecipeError(field, given, allowed, remedy)
    return int((last_state(asked.name) or {"step": 0})["step"])


def _changed(held: Any, now: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Every field that differs, as (dotted name, was, is)."""
    if isinstance(held, dict) and isinstance(now, dict):
        return [
            change
            for key in sorted(held.keys() | now.keys())
            for change in _changed(held.get(key), now.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if held == now else [(path, held, now)]


def keep_recipe(asked: Training) -> Path:
    """Write down whose checkpoints will lie in the folder; the folder."""
    folder = training_folder(asked.name)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{RECIPE}.{os.getpid()}"  # several processes may train together, and read what another writes
    part.write_text(json.dumps(asked.model_dump(mode="json"), indent=1), encoding="utf-8")
    part.replace(folder / RECIPE)
    return folder
