"""A thinning, step by step: the baseline's model is pruned a little, measured, and again, until its budget is spent."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

from backend.executors.local import LocalExecutor
from backend.hardware import hardware
from backend.journal import Journal
from backend.raceway import Raceway
from backend.recipe.thinning import Thinning

LOADING = 2.0  # steps that loading usually takes as long as
BASE = "base"


class Thinway(Raceway):
    """The way of a thinning into the journal: one lane, one progress over all steps."""

    def __init__(
        self, journal: Journal, job: int, asked: Thinning, executor: LocalExecutor, beat: Callable[[], None]
    ) -> None:
        super().__init__(journal, job, asked.race, executor, beat)
        self.asked = asked
        self._done, self._steps = 0.0, float(ceil(asked.most / asked.step))

    def run(self) -> None:
        """Load, then step until the budget is spent, the most has gone, or nothing more can."""
        label = self.race.baseline.label
        self.write(("opened", None, hardware() | {"lanes": {BASE: label}, "model": self.race.model}))
        self.start_lane(BASE)
        self.hear(BASE, "load", 0.0, "loading")
        self.call(BASE, "load")
        self.call(BASE, "transform")
        start = self.call(BASE, "thin_start", asked=self.asked.model_dump(mode="json"))
        self._done = LOADING
        if start is not None:
            self.write(("thin_start", BASE, start))
            self.write(("thin_stopped", BASE, {"reason": self._thin(start)}))

    def _thin(self, start: dict[str, Any]) -> str:
        """Every step; why it ended."""
        last, left = int(start["units"] * (1 - self.asked.most)), start["units"]
        self._steps = float(ceil((left - last) / max(1, self.asked.step * left)))
        while left > max(1, last):
            self.hear(BASE, "thin_step", 0.0, f"{left} of {start['units']} {self.asked.part} left")
            found = self.call(BASE, "thin_step")
            if found is None:
                return "the lane was lost"
            if "reason" in found:
                return str(found["reason"])
            self._done += 1
            self.write(("thinned", BASE, found))
            if not found["kld"] <= self.asked.kld:
                return f"the quality budget of {self.asked.kld:g} nats is spent"
            if found["left"] >= left:
                return "a step took nothing"
            left = found["left"]
        return f"{self.asked.most:.0%} have gone, the most that was asked for"

    def hear(self, name: str, verb: str, share: float, text: str) -> None:
        """Progress of the step in hand within the whole."""
        width = LOADING / 3 if verb in ("load", "transform", "thin_start") else 1.0
        whole = LOADING + self._steps
        self.phase("pruning and measuring", min(whole, self._done + width * min(1.0, share)), whole, name, text)
