"""The encoding: an encoder's race from its first lane to its verdict. Nothing is written; sentences become vectors.

Lanes are loaded, changed, compared on the same sentences, and then measured in turn: every round encodes the same
sentences one by one, in calls of 8 and in calls of 32, in every lane, the lanes' order reversed from round to round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from backend.conditions import Conditions
from backend.embeddings import found, own_worth, worth_against
from backend.encodingverdict import build_verdict, encoded
from backend.encodingview import EncodingView
from backend.executors.local import LocalExecutor
from backend.journal import Event, Journal
from backend.measurement import FEWEST_PAIRS, FEWEST_ROUNDS, MOST_ROUNDS
from backend.packedvectors import unpacked
from backend.phases import lost_baseline
from backend.raceway import Raceway
from backend.recipe.facts import Task
from backend.recipe.race import Race
from backend.sentences import own_sentences

SIZES = (1, 8, 32)  # sentences a call
COUNT = 32  # sentences a round, whatever the size


class Encodeway(Raceway):
    """The way of an encoder's race into the journal."""

    task: ClassVar[Task] = "encoder"

    def __init__(self, journal: Journal, job: int, race: Race, executor: LocalExecutor, beat: Callable[[], None]):
        super().__init__(journal, job, race, executor, beat)
        self.encoding = EncodingView()
        self._alone: dict[str, np.ndarray] = {}  # each lane's vectors, one sentence a call

    def write(self, *events: tuple[str, str | None, dict[str, Any]]) -> None:
        """Append events and fold them into both views: the race's knows the lanes' ends."""
        super().write(*events)
        for kind, lane, data in events:
            self.encoding.apply(Event(0, self.job, 0.0, kind, lane, data))

    def run(self) -> None:
        """A whole race of encoders.

        Raises:
            RecipeError: when the baseline cannot run as it was asked.
        """
        if self._get_ready():
            self._compare()
            self._search()
        self._measure()
        self._witness()
        self.write(("verdict", None, build_verdict(self.encoding, self.race)))

    def _get_ready(self) -> bool:
        """Load, transform, warm up; returns whether quality has a meaning for this model."""
        self.start_lanes()
        lanes = len(self.race.lanes)
        self.phase("loading", 0, lanes, text="starting")
        loaded: dict[str, Any] = {}
        for count, (name, reply) in enumerate(self.each("load"), 1):
            loaded[name] = reply
            self.phase("loading", count, lanes, name)
        if "base" not in loaded:
            raise lost_baseline(self.view)
        scored = bool(loaded["base"]["scored"])
        self.write(("opened", None, self.open_event(None, scored) | {"sizes": list(SIZES), "model": self.race.model}))
        self.phase("transforming", 0, lanes)
        for count, (name, _) in enumerate(self.each("transform"), 1):
            self.phase("transforming", count, lanes, name)
        self.phase("warming up", 0, lanes)
        for count, (name, reply) in enumerate(self.each("warm", size=max(SIZES)), 1):
            self.write(("ready", name, reply))
            self.phase("warming up", count, lanes, name)
        return scored

    def _compare(self) -> None:
        """Every lane's vectors in every size of the call, against the baseline's of the same size."""
        asked, done = own_sentences(), 0
        total = len(SIZES) * len(self.lanes)
        self.phase("comparing vectors", 0, total)
        for size in SIZES:
            base: np.ndarray | None = None
            for name, reply in self.each("vectors", size=size):  # the baseline is the first lane
                vectors = unpacked(reply)
                if size == 1:
                    self._alone[name] = vectors
                worth = {"size": size, **own_worth(vectors, asked)}
                if name == "base":
                    base = vectors
                elif base is not None:
                    worth |= worth_against(vectors, base, asked)
                self.write(("worth", name, worth))
                done += 1
                self.phase("comparing vectors", done, total, name)

    def _search(self) -> None:
        """The sentences that each lane finds nearest to the race's own text."""
        asked = own_sentences()
        for name, query in self.each("query"):
            self.write(("found", name, {"sentences": found(unpacked(query), self._alone[name], asked)}))

    def _witness(self) -> None:
        """Watch each lane under the profiler and read its receipt again: last, since its memory is no lane's own."""
        for name, reply in self.each("witness", size=max(SIZES)):
            self.write(("receipt", name, reply))

    def _measure(self) -> None:
        """Rounds until every ratio is known or the time is spent, the machine watched meanwhile."""
        budget = self.race.measure.budget_s
        if not budget or "base" not in self.lanes:
            return
        began = time.monotonic()
        self.phase("measuring", 0, budget)
        conditions = Conditions()
        with self.watched(conditions.glance):
            for number in range(MOST_ROUNDS):
                self._round(number)
                conditions.look()
                spent = time.monotonic() - began
                self.phase("measuring", min(spent, budget), budget, text=f"round {number + 1}")
                if "base" not in self.lanes:
                    break
                if number + 1 >= FEWEST_ROUNDS and (spent > budget or self._known()):
                    break
        self.write(("conditions", None, conditions.facts()))

    def _round(self, number: int) -> None:
        """The same sentences in every size, by every lane."""
        order = list(self.lanes) if number % 2 == 0 else list(self.lanes)[::-1]
        for size in SIZES:
            replies = list(self.each("encode", order, size=size, count=COUNT))
            for place, (name, reply) in enumerate(replies):
                self.write(("encoded", name, {"round": number, "order": place, **reply}))

    def _known(self) -> bool:
        """Whether every variant's interval in every size is as narrow as asked, with six pairs at least."""
        so_far = encoded(self.encoding)
        ratios = [so_far.ratio(name, size) for name in self.variants for size in SIZES]
        return all(
            ratio is not None
            and ratio.pairs >= FEWEST_PAIRS
            and ratio.width <= self.race.measure.width
            and not ratio.is_open
            for ratio in ratios
        )
