"""What a lane is to whoever drives it, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from backend.recipe.training import LaneTask


class Lane(Protocol):
    """A lane that runs somewhere: it does one thing at a time, and ends when it is told to."""

    def call(
        self,
        verb: str,
        waiting: Callable[[], None] = ...,
        progress: Callable[[float, str], None] = ...,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Let the lane do one thing and wait for it.

        Raises:
            RecipeError: when the lane refused the recipe.
            LaneDied: when it failed or its process ended.
        """

    def stop(self) -> None:
        """End it."""


class Executor(Protocol):
    """Starts lanes."""

    def start(self, name: str, spec: dict[str, Any], task: LaneTask = ...) -> Lane:
        """Start a lane; it loads nothing until it is told to."""
