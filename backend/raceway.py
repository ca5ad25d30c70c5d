"""The raceway: one race from its first lane to its verdict. It passes the turn and writes down what happens.

Lanes never compute at the same time: the one whose clock is furthest behind gets the next slice, so that the faster
lane pulls ahead by its true ratio and a drift of the machine hits all alike. After every turn there is a breath, off
every clock, in which the threads of the lane that ran come to rest and the page draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import Any, ClassVar, Self

from backend.executors.local import LaneDied, LocalExecutor, LocalLane
from backend.hardware import hardware
from backend.journal import Event, Journal
from backend.recipe.base import RecipeError
from backend.recipe.facts import Task
from backend.recipe.race import Race
from backend.replay import RaceView
from backend.ring_size import ring_bytes
from backend.watch import Cancelled

SLICE_S = 0.1
BREATH_S = 0.016  # about what drawing the news costs server and browser together


class Raceway:
    """What all phases of one race share: its lanes that live, its view, and the way into the journal."""

    task: ClassVar[Task] = "decoder"

    def __init__(self, journal: Journal, job: int, race: Race, executor: LocalExecutor, beat: Callable[[], None]):
        self.journal, self.job, self.race = journal, job, race
        self.view = RaceView()
        self.lanes: dict[str, LocalLane] = {}
        self._executor, self._beat = executor, beat
        self._ring: SharedMemory | None = None
        self._began = time.monotonic()
        self._phase_began = self._began
        self._watcher: Callable[[], None] = lambda: None

    # Writing down

    def write(self, *events: tuple[str, str | None, dict[str, Any]]) -> None:
        """Append events and fold them into the view."""
        self.journal.append(self.job, events)
        for kind, lane, data in events:
            self.view.apply(Event(0, self.job, 0.0, kind, lane, data))

    def phase(self, name: str, done: float, total: float, lane: str | None = None, text: str = "") -> None:
        """Say how far a phase is, with an estimate of the time left once some of it is done."""
        now = time.monotonic()
        if done == 0:
            self._phase_began = now
        eta = (now - self._phase_began) / done * (total - done) if done else None
        data = {"name": name, "done": done, "total": total, "eta_s": eta, "text": text}
        self.write(("phase", lane, data))

    def pause(self) -> None:
        """Look whether to go on; called ten times a second while a lane works, and after every slice."""
        self._beat()
        if self.journal.cancelled(self.job):
            raise Cancelled

    @contextmanager
    def watched(self, watcher: Callable[[], None]) -> Iterator[None]:
        """Call `watcher` ten times a second while a lane works, for as long as the block lasts."""
        self._watcher = watcher
        try:
            yield
        finally:
            self._watcher = lambda: None

    def _waiting(self) -> None:
        self.pause()
        self._watcher()

    def breathe(self) -> None:
        """The pause after a turn, off every lane clock."""
        self.pause()
        time.sleep(BREATH_S)

    # Lanes

    def start_lanes(self) -> None:
        """Start a process for every lane."""
        for name, _ in self.race.lanes:
            self.start_lane(name)

    def start_lane(self, name: str) -> None:
        """Start one lane's process."""
        self.lanes[name] = self._executor.start(name, self.race.model_dump(mode="json"), self.task)

    def end_lane(self, name: str) -> None:
        """End a lane that has done all that was asked of it."""
        self.lanes.pop(name).stop()

    def make_ring(self, vocab: int) -> str:
        """Make the shared memory through which the baseline's log-probabilities go."""
        self._ring = SharedMemory(create=True, size=ring_bytes(vocab))
        return self._ring.name

    def call(self, name: str, verb: str, **arguments: Any) -> dict[str, Any] | None:
        """Let a lane do something; None when it died of it, which is written down and ends no other lane."""
        lane = self.lanes.get(name)
        if lane is None:
            return None

        def progress(share: float, text: str) -> None:
            self.hear(name, verb, share, text)

        try:
            return lane.call(verb, self._waiting, progress, **arguments)
        except LaneDied as death:
            self.lose(name, death.event | {"phase": self.view.phase.get("name", verb)})
        except RecipeError as error:
            card = error.card()
            detail = f"{card['field']}: {card['value']} is not possible. Allowed: {card['allowed']}."
            event = {"cause": "refused", "detail": detail, "remedy": card["remedy"], "card": card}
            self.lose(name, event | {"phase": self.view.phase.get("name", verb)})
        return None

    def hear(self, name: str, verb: str, share: float, text: str) -> None:
        """What a lane tells while it works: the share done of what it does."""
        self.phase(self.view.phase.get("name", verb), share, 1.0, name, text)

    def lose(self, name: str, event: dict[str, Any]) -> None:
        """Write down the end of a lane."""
        self.lanes.pop(name).stop()
        self.write(("lane_failed", name, event))

    def each(self, verb: str, names: list[str] | None = None, **arguments: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Call a verb on every living lane in turn, with a breath after each, once its reply was written down."""
        for name in list(self.lanes if names is None else names):
            reply = self.call(name, verb, **arguments)
            if reply is not None:
                yield name, reply
            self.breathe()

    @property
    def variants(self) -> list[str]:
        """Names of the living variants."""
        return [name for name in self.lanes if name != "base"]

    @property
    def wall_s(self) -> float:
        """Seconds since the race began."""
        return time.monotonic() - self._began

    def open_event(self, prompt_tokens: int | None, scored: bool) -> dict[str, Any]:
        """What stands at the head of a race: where and with what it ran."""
        labels = {name: recipe.label for name, recipe in self.race.lanes}
        return hardware() | {
            "lanes": labels,
            "keys": {name: recipe.key for name, recipe in self.race.lanes},
            "race": self.race.key,
            "prompt_tokens": prompt_tokens,
            "scored": scored,
        }

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Whatever happens, no lane and no shared memory stays behind."""
        try:
            yield self
        finally:
            for lane in self.lanes.values():
                lane.stop()
            self.lanes.clear()
            if self._ring is not None:
                self._ring.close()
                self._ring.unlink()
