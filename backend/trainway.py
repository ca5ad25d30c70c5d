"""A training in the worker: it has the machine whenever nothing else wants it, and gives way within a step.

Its lane stays in memory while a race runs, and idles; what that costs both is written down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from backend.executors.executor import Executor, Lane
from backend.executors.local import LaneDied
from backend.hardware import hardware
from backend.journal import Job, Journal, JournalFull
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.watch import Cancelled

SLICE_S = 0.2
NAME = "student"


class Rested(Exception):
    """Somebody asked for a pause: a checkpoint is written, and the lane is gone."""


class Trainway:
    """The way of one training into the journal, a turn at a time."""

    def __init__(
        self, journal: Journal, job: int, asked: Training, executor: Executor, beat: Callable[[], None]
    ) -> None:
        self.journal, self.job, self.asked = journal, job, asked
        self._executor, self._beat = executor, beat
        self._lane: Lane | None = None
        self._began = time.monotonic()
        self._first, self._worked_s = 0, 0.0
        self._gave_way_s = 0.0
        self.turn_s = 0.0  # of the last turn: nobody waits longer

    def turn(self) -> dict[str, float] | None:
        """One turn: loading, or about SLICE_S of steps. The figures of the end once it is over, else None.

        Raises:
            RecipeError, LaneDied, Cancelled, Rested: when it ends otherwise.
        """
        self._look_up()
        if self._lane is None:
            self._load()
            return None
        began = time.monotonic()
        reply = self._call("train", seconds=SLICE_S)
        self.turn_s = time.monotonic() - began
        self._worked_s += self.turn_s
        self._write(reply["told"], reply["step"])
        if not reply["ended"]:
            return None
        return self._end(reply)

    def _look_up(self) -> None:
        """Whether somebody asked for the end or for a pause.

        Raises:
            Cancelled, Rested.
        """
        self._beat()
        rests = self.journal.state(self.job) != "running"
        if rests or self.journal.cancelled(self.job):
            self.keep()
        if self.journal.cancelled(self.job):
            raise Cancelled
        if rests:
            self.stop()
            self.journal.append(self.job, [("paused", None, {})])
            raise Rested

    def keep(self) -> None:
        """Write a checkpoint now, where there is something to keep."""
        if self._lane is not None and self._worked_s:
            told = self._call("checkpoint")["told"]
            self.journal.append(self.job, [(kind, NAME, data) for kind, data in told])

    def _load(self) -> None:
        head = {"lanes": {NAME: self.asked.label}, "model": self.asked.model, "name": self.asked.name}
        self.journal.append(self.job, [("opened", None, hardware() | head)])
        self._lane = self._executor.start(NAME, self.asked.model_dump(mode="json"), "training")
        loaded = self._call("load")
        self._first = loaded["step"]
        self.journal.append(self.job, [("begun", NAME, loaded)])

    def _call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        if self._lane is None:
            raise RuntimeError("the training's lane has not been started")
        return self._lane.call(verb, self._waiting, self._hear, **arguments)

    def _waiting(self) -> None:
        """Ten times a second while the lane works: loading is broken off, a step is not."""
        self._beat()
        if not self._worked_s and self.journal.cancelled(self.job):
            raise Cancelled

    def _hear(self, share: float, text: str) -> None:
        self._phase("getting ready", share, 1.0, None, text)

    def _write(self, told: list[Any], step: int) -> None:
        """What happened in a turn, and how far it is."""
        events: list[tuple[str, str | None, dict[str, Any]]] = [(kind, NAME, data) for kind, data in told]
        if events:
            self.journal.append(self.job, events)
        done = step - self._first
        eta = self._worked_s / done * (self.asked.steps - step) if done else None
        self._phase("training", step, self.asked.steps, eta, f"step {step:,} of {self.asked.steps:,}")

    def _phase(self, name: str, done: float, total: float, eta: float | None, text: str) -> None:
        data = {"name": name, "done": done, "total": total, "eta_s": eta, "text": text}
        self.journal.append(self.job, [("phase", NAME, data)])

    def gave_way(self, seconds: float, waited_s: float) -> None:
        """Another job had the machine for so long, and waited so long for it."""
        self._gave_way_s += seconds
        self.journal.append(self.job, [("gave_way", None, {"seconds": seconds, "waited_s": waited_s})])

    def _end(self, reply: dict[str, Any]) -> dict[str, float]:
        self.journal.append(self.job, [("ended", NAME, {"step": reply["step"], "reason": reply["ended"]})])
        self._phase("saving", 0.0, 1.0, None, "Saving the model")
        saved = self._call("save")
        self.journal.append(self.job, [("saved", NAME, saved)])
        figures = {"trained_s": reply["spent_s"], "gave_way_s": self._gave_way_s}
        return {"wall_s": time.monotonic() - self._began} | figures

    def stop(self) -> None:
        """No lane stays behind."""
        if self._lane is not None:
            self._lane.stop()
            self._lane = None


class Trainings:
    """The training in hand, if any: the worker gives it every turn that nobody else wants."""

    def __init__(self, journal: Journal, name: str, executor: Executor, beat: Callable[[], None]) -> None:
        self._journal, self._name = journal, name
        self._executor, self._beat = executor, beat
        self._job: Job | None = None
        self._way: Trainway | None = None

    def take_up(self) -> Job | None:
        """The job in hand, or the oldest that waits."""
        if self._job is None:
            self._job = self._journal.claim(self._name, "train")
        return self._job

    def take(self, job: Job) -> None:
        """This job and no other, which whoever calls has claimed."""
        self._job = job

    def turn(self) -> dict[str, float] | None:
        """One turn of the job in hand: None while there is more to do, figures at its end.

        Raises:
            RecipeError: for one that is refused, or whose lane died.
            Cancelled: when somebody asked for the end.
        """
        over = True
        try:
            figures = self._way_of_job().turn()
            over = figures is not None
            return figures
        except Rested:
            return None
        except LaneDied as death:
            raise self._lost(death) from death
        finally:
            if over:
                self._let_go()

    def _way_of_job(self) -> Trainway:
        if self._job is None:
            raise RuntimeError("there is no training in hand")
        if self._way is None:
            asked = Training.read(self._job.spec)
            self._way = Trainway(self._journal, self._job.id, asked, self._executor, self._beat)
        return self._way

    def _lost(self, death: LaneDied) -> RecipeError:
        if self._job is not None:
            self._journal.append(self._job.id, [("lane_failed", NAME, death.event | {"phase": "training"})])
        remedy = f"{death.event['remedy']} Resume goes on from the last checkpoint."
        return RecipeError("training", death.event["cause"], death.event["detail"], remedy)

    def gave_way(self, seconds: float, waited_s: float) -> None:
        """Another job had the machine for so long, after waiting so long for a turn to end."""
        if self._way is not None:
            self._way.gave_way(seconds, min(waited_s, self._way.turn_s))

    def leave(self) -> None:
        """The worker ends: a checkpoint, and back into the queue, for whoever comes next."""
        if self._job is not None and self._way is not None:
            with suppress(LaneDied, RecipeError, JournalFull):
                self._way.keep()
                self._journal.finish(self._job.id, "queued")
        self._let_go()

    def _let_go(self) -> None:
        if self._way is not None:
            self._way.stop()
        self._job, self._way = None, None
