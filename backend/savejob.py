"""A model's saving as a job: what is asked, and the process that does it, watched and cancelled from outside."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from backend.recipe.base import Config, RecipeError
from backend.recipe.race import Race
from backend.saved import own_folder, unfinished
from backend.watch import Progress, Watch, start

Command = Callable[["SaveOrder", Path], list[str]]
_BRIEF = {"prompt": "Once", "max_new_tokens": 1}  # the prompt is no part of a model, and may be too long for a command


class SaveOrder(Config):
    """One lane of a race, to be saved under a plain name."""

    race: Race
    lane: str
    name: str = Field(max_length=200)
    job: int | None = None  # the race that it was asked from

    def check(self) -> Path:
        """The folder that it will become.

        Raises:
            RecipeError: for a lane that the race has not, or a name that cannot be taken.
        """
        lanes = [name for name, _ in self.race.lanes]
        if self.lane not in lanes:
            raise RecipeError("lane", self.lane, f"one of {', '.join(lanes)}", "Choose a lane of the race.")
        return own_folder(self.name)


def save_command(order: SaveOrder, told: Path) -> list[str]:
    """The command that saves; a process of its own, since it needs torch, and its memory is free afterwards."""
    kept = order.race.model_dump(
        mode="json", include={"model", "revision", "trust_remote_code", "baseline", "variants"}
    )
    race = json.dumps(kept | _BRIEF)
    command = [sys.executable, "-m", "backend.cli_save", race, "--lane", order.lane, "--name", order.name]
    return [*command, "--told", str(told)]


def save(
    order: SaveOrder,
    *,
    progress: Progress = lambda share, text: None,
    cancelled: Callable[[], bool] = lambda: False,
    command: Command = save_command,
) -> Path:
    """Save and wait for it; the folder is whole or not there.

    Args:
        progress: hears the share done, 0 to 1, and what is being done.
        cancelled: asked five times a second.
    Raises:
        RecipeError: for what cannot be saved, with the process's own card where it gave one.
        Cancelled: when `cancelled` said so.
    """
    folder = order.check()
    watch = Watch(progress, cancelled)
    watch.check()
    with tempfile.TemporaryDirectory() as work:
        told = Path(work) / "told.json"
        try:
            complaint = watch.wait(start(command(order, told)), _teller(told, progress))
        finally:
            for left in folder.parent.glob(f"{unfinished(folder)}-*"):  # of a process that was ended at its work
                shutil.rmtree(left, ignore_errors=True)
        if card := _read(told).get("card"):
            raise RecipeError(**card)
        if complaint:
            last_line = complaint.splitlines()[-1][:300]
            raise RecipeError("save", last_line, "a process that saves", "Try again; if it stays so, report it.")
    progress(1.0, "Saved")
    return folder


def _teller(told: Path, progress: Progress) -> Callable[[], None]:
    """What passes on what the file says, when it says something else."""
    last: dict[str, Any] = {}

    def tell() -> None:
        nonlocal last
        if (now := _read(told)) != last and "share" in now:
            progress(float(now["share"]), str(now["text"]))
        last = now

    return tell


def write_told(file: Path, **fields: Any) -> None:
    """Say where the work stands, in a file that is whole whenever it is read."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(fields), encoding="utf-8")
    part.replace(file)


def _read(told: Path) -> dict[str, Any]:
    return dict(json.loads(told.read_text(encoding="utf-8"))) if told.is_file() else {}
