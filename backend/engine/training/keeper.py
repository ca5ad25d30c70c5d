"""The keeper: when a checkpoint is due, and what is said when the disk does not take it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from backend.engine.saved.write import full_disk_said
from backend.engine.training.checkpoint import write_checkpoint
from backend.engine.training.trainer import Trainer
from backend.recipe.base import RecipeError

Told = tuple[str, dict[str, Any]]
CHECKPOINT_SHARE = 0.01  # of the time that checkpoints may take


class Keeper:
    """Writes the checkpoints of one training into its folder."""

    def __init__(self, folder: Path, every_s: float) -> None:
        self._folder, self._every_s = folder, every_s
        self._written_at, self._write_s = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether so much has been done since the last one that it is worth its time."""
        return time.monotonic() - self._written_at > max(self._every_s, self._write_s / CHECKPOINT_SHARE)

    def write(self, trainer: Trainer, state: dict[str, Any]) -> Told:
        """Write a checkpoint; on a full disk the last one stays, and the training goes on."""
        began = time.monotonic()
        try:
            with full_disk_said(self._folder):
                size = write_checkpoint(self._folder, trainer.kept, trainer.optimizer, state)
        except RecipeError as error:
            return "checkpoint_failed", {"step": state["step"], "card": error.card()}
        finally:
            self._written_at, self._write_s = time.monotonic(), time.monotonic() - began
        return "checkpointed", {"step": state["step"], "bytes": size, "seconds": self._write_s}
