"""A context sweep, length by length: caches scored in the baseline's model, or every lane timed in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backend.executors.local import LocalExecutor
from backend.hardware import hardware
from backend.journal import Journal
from backend.raceway import Raceway
from backend.recipe.contexts import ContextSweep

LOADING = 600.0  # tokens that take about as long as loading a lane
DECODED = 4.0  # tokens that a scored token takes as long as, in each cache, of those read many a call
TIMED = 1500.0  # tokens that take about as long as timing steps at one length


class Contextway(Raceway):
    """The way of a sweep into the journal: one progress over all lanes and lengths."""

    def __init__(
        self, journal: Journal, job: int, asked: ContextSweep, executor: LocalExecutor, beat: Callable[[], None]
    ) -> None:
        super().__init__(journal, job, asked.race, executor, beat)
        self.asked = asked
        self._done, self._step, self._whole = 0.0, LOADING, LOADING

    def run(self) -> None:
        """Load every lane that is asked about, then go through the lengths, at each through the lanes."""
        every = self.race.lanes if self.asked.ask == "speed" else self.race.lanes[:1]
        labels = {name: recipe.label for name, recipe in every}
        self._whole = 2 * LOADING * len(every)  # until the lengths are known
        self.write(("opened", None, hardware() | {"lanes": labels, "model": self.race.model}))
        lengths: list[int] = []
        for name in labels:
            lengths = self._load(name) or lengths
        costs = [self._cost(length, before) for before, length in zip([0, *lengths], lengths, strict=False)]
        self._whole = self._done + len(self.lanes) * sum(costs)
        verb = f"context_{self.asked.ask}"
        for length, cost in zip(lengths, costs, strict=True):
            for name in list(self.lanes):
                self._step = cost
                self.hear(name, verb, 0.0, f"{length:,} tokens")
                if found := self.call(name, verb, length=length):
                    self.write((verb, name, found))
                self._done += cost
                self.breathe()

    def _load(self, name: str) -> list[int]:
        """One lane, ready; the lengths that it can be swept over."""
        self.start_lane(name)
        self._step = LOADING / 3
        start: dict[str, Any] | None = None
        for verb in ("load", "transform", "context_start"):
            self.hear(name, verb, 0.0, "loading")
            arguments = {"asked": self.asked.model_dump(mode="json")} if verb == "context_start" else {}
            start = self.call(name, verb, **arguments)
            self._done += self._step
        if start is None:
            return []
        self.write(("context_start", name, start))
        return [int(length) for length in start["lengths"]]

    def _cost(self, length: int, before: int) -> float:
        """About how long one length takes, in tokens that are read many a call."""
        if self.asked.ask == "speed":
            return length + TIMED
        return length - before + (1 + len(self.asked.caches)) * DECODED * self.asked.scored

    def hear(self, name: str, verb: str, share: float, text: str) -> None:
        """Progress of the step in hand within the whole."""
        done = self._done + self._step * min(1.0, share)
        self.phase("sweeping the context", min(self._whole, done), self._whole, name, text)
