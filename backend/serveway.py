"""A serving, from its first lane to its verdict: the same load on every lane, each on its own clock.

Lanes never compute at the same time: the one whose clock is furthest behind gets the next slice.
"""

from __future__ import annotations

from collections.abc import Callable

from backend.executors.local import LocalExecutor
from backend.hardware import hardware
from backend.journal import Event, Journal
from backend.raceway import Raceway
from backend.recipe.serving import Serving
from backend.serving.view import ServingView

SLICE_S = 0.25


class Serveway(Raceway):
    """The way of a serving into the journal."""

    def __init__(
        self, journal: Journal, job: int, asked: Serving, executor: LocalExecutor, beat: Callable[[], None]
    ) -> None:
        super().__init__(journal, job, asked.race, executor, beat)
        self.asked = asked
        self.served = ServingView()

    def run(self) -> None:
        """Every lane gets ready, then all serve in turn, then some answers are written again alone."""
        labels = {name: lane.label for name, lane in self.asked.lanes}
        head = {"lanes": labels, "model": self.asked.model, "load": self.asked.load.label}
        self._tell("opened", None, hardware() | head)
        for name, _ in self.asked.lanes:
            self._prepare(name)
        self._serve()
        self._compare()
        self._tell("verdict", None, self.served.judged(self.asked.targets))

    def _tell(self, kind: str, lane: str | None, data: dict[str, object]) -> None:
        self.journal.append(self.job, [(kind, lane, data)])
        self.served.apply(Event(0, self.job, 0.0, kind, lane, data))

    def lose(self, name: str, event: dict[str, object]) -> None:
        """Write down the end of a lane."""
        self.lanes.pop(name).stop()
        self._tell("lane_failed", name, event)

    def _prepare(self, name: str) -> None:
        self.phase("loading", 0, 1, name)
        self.start_lane(name)
        loaded = self.call(name, "load")
        self.call(name, "transform")
        if loaded and (ready := self.call(name, "warm", ring=None, vocab=loaded["vocab"])):
            self._tell("ready", name, ready)
        if reply := self.call(name, "serve_load", spec=self.asked.model_dump(mode="json")):
            self._tell("loaded", name, reply)

    def _serve(self) -> None:
        lanes = self.served.lanes
        self._progress()
        while going := [name for name in self.lanes if not lanes[name].done]:
            name = min(going, key=lambda one: lanes[one].clock)
            if reply := self.call(name, "serve_slice", budget_s=SLICE_S):
                self._tell("served", name, reply)
                self._progress(name)
            self.breathe()

    def _progress(self, name: str | None = None) -> None:
        """Answers that have ended, of all that the living lanes are to give."""
        lanes = [self.served.lanes[one] for one in self.lanes]
        done, total = sum(len(one.ended) for one in lanes), sum(one.requests for one in lanes)
        self.phase("serving", done, max(1, total), name, f"{done} of {total} answers")

    def _compare(self) -> None:
        most = [self.served.lanes[name].requests for name in self.lanes]
        count = min([self.asked.check_alone, *most]) if most else 0
        for place in range(count):
            self.phase("comparing with answers written alone", place, count)
            for name in list(self.lanes):
                if reply := self.call(name, "serve_alone", place=place):
                    self._tell("alone", name, reply)
