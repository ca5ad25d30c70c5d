"""The first of several processes that train together is this one: its lane answers without a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backend.engine.training.replicas import Replicas
from backend.executors.local import LaneDied
from backend.laneprocess import failure
from backend.recipe.base import RecipeError
from backend.recipe.training import LaneTask
from backend.traingroup import GroupLane


class HereLane:
    """A lane in this process."""

    def __init__(self, name: str, spec: dict[str, Any], replicas: Replicas) -> None:
        self._progress: Callable[[float, str], None] = lambda share, text: None
        self.lane = GroupLane(name, spec, lambda share, text: self._progress(share, text), replicas)

    def call(
        self,
        verb: str,
        waiting: Callable[[], None] = lambda: None,
        progress: Callable[[float, str], None] = lambda share, text: None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Do one thing; `waiting` runs whenever it tells how far it is, since nothing else runs here meanwhile.

        Raises:
            RecipeError: when the lane refuses the recipe.
            LaneDied: when it fails.
        """

        def heard(share: float, text: str) -> None:
            waiting()
            progress(share, text)

        self._progress = heard
        try:
            return self.lane.answer(verb, arguments)
        except RecipeError:
            raise
        except Exception as error:  # the boundary between a lane and what drives it: its failure has a cause
            raise LaneDied(**failure(error)) from error

    def stop(self) -> None:
        """Let the other processes go."""
        self.lane.leave()


class HereExecutor:
    """Starts the lane of a training in this process."""

    def __init__(self, replicas: Replicas) -> None:
        self.replicas = replicas

    def start(self, name: str, spec: dict[str, Any], task: LaneTask = "training") -> HereLane:
        """Make the lane; it loads nothing until it is told to."""
        return HereLane(name, spec, self.replicas)
