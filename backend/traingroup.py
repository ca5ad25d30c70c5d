"""A training that several processes bear together: what the first of them does, and what the others do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from backend.engine.training.replicas import ReplicaLost, Replicas, Stopped
from backend.engine.training.trainer import NotFinite
from backend.recipe.base import RecipeError
from backend.techniques.base import Subject
from backend.trainlane import Progress, TrainLane

SLICE_S = 60.0  # after which a process that tells nobody forgets what it would have told


class GroupLane(TrainLane):
    """The training lane of one process of a group. Only the first one's looks, writes and saves."""

    def __init__(self, name: str, spec: dict[str, Any], progress: Progress, replicas: Replicas) -> None:
        super().__init__(name, spec, progress, replicas)
        self._together = False

    def answer(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do what a verb says.

        Raises:
            RecipeError: also when another process of the group has ended.
        """
        with _whole(self.replicas):
            return super().answer(verb, arguments)

    def load(self) -> dict[str, Any]:
        """Load in every process; all begin with the first one's weights, or none begins.

        Raises:
            RecipeError: what any process cannot do, in all of them; or checkpoints that are not the same everywhere.
        """
        head: dict[str, Any] = {}
        card: dict[str, str] | None = None
        try:
            if self.asked.stages.assistants:
                remedy = "Train it by one process, or each stage as a training of its own."
                raise RecipeError("stages", "assistants", "no stages where several processes train together", remedy)
            head = super().load()
        except RecipeError as error:
            card = error.card()
        said = self.replicas.agree((card, head.get("step")))
        for refused, _ in said:
            if refused is not None:
                raise RecipeError(**refused)
        steps = sorted({step for _, step in said})
        if len(steps) > 1:
            value = f"checkpoints of the steps {', '.join(map(str, steps))}"
            remedy = "Put HEADWAY_HOME on a disk that all machines see."
            raise RecipeError("name", value, "the same checkpoint in every process", remedy)
        self._together = True
        tensors = [*self.trainer.kept.parameters(), *self.trainer.kept.buffers()]
        self.replicas.share([value for value in tensors if value.is_floating_point()])
        return head | {"processes": self.replicas.count}

    def train(self, seconds: float) -> dict[str, Any]:
        """Go on for about so long; at the end, whatever its reason, the other processes are let go."""
        reply = super().train(seconds)
        if reply["ended"]:
            self.leave()
        return reply

    def leave(self) -> None:
        """Let the other processes go: there is no further step."""
        if self._together and self.replicas.leads:
            with suppress(ReplicaLost):  # who has ended needs no word
                self.replicas.stop()

    def _look(self, who: str, subject: Subject) -> Iterator[None]:
        if self.replicas.leads:
            yield from super()._look(who, subject)

    def _checkpoint_when_due(self) -> None:
        if self.replicas.leads:
            super()._checkpoint_when_due()


def follow(spec: dict[str, Any], replicas: Replicas) -> None:
    """What every process but the first does: each step with it, until it says that there is none.

    Raises:
        RecipeError: what no process could do, a loss that is not finite, or another process that has ended.
    """
    lane = GroupLane("student", spec, lambda share, text: None, replicas)
    with _whole(replicas):
        lane.load()
        if refused := _steps(lane):
            raise refused


def _steps(lane: GroupLane) -> RecipeError | None:
    """Every step, and the wait for the last word; the reason where a loss was not finite, as all have seen."""
    refused = None
    with suppress(Stopped):
        try:
            while not lane.train(SLICE_S)["ended"]:
                pass
        except RecipeError as error:
            if not isinstance(error.__cause__, NotFinite):
                raise
            refused = error
        lane.replicas.go_on()
    return refused


@contextmanager
def _whole(replicas: Replicas) -> Iterator[None]:
    """Work that needs every process of the group.

    Raises:
        RecipeError: when one of them has ended, with the reason.
    """
    try:
        yield
    except ReplicaLost as error:
        allowed = f"all {replicas.count} of them, to the end"
        remedy = "See what the others said, and start it again: it goes on from the last checkpoint."
        raise RecipeError("processes", error, allowed, remedy) from error
