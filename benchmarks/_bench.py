"""What the benchmarks share: a race with no page, and a printed check that decides the exit code."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend.executors.local import LocalExecutor
from backend.hardware import hardware
from backend.journal import Journal
from backend.metrics import Ratio
from backend.phases import run_phases
from backend.raceway import Raceway
from backend.recipe.race import Race
from backend.replay import RaceView

STORY = (
    "Once there was a lantern in the harbor. The lantern is red. Once there was a key in the mill. The key is blue. "
    "Anna was in the harbor. Ben was in the mill. Anna took the lantern in the harbor."
)
ENGLISH = "The history of the lighthouse begins on a small island where a family of fishermen"


class Bench:
    """Runs races in a journal of its own and counts what fell short."""

    def __init__(self, title: str) -> None:
        self.executor = LocalExecutor()
        self.failed = 0
        machine = hardware()["hardware"]
        print(f"{title}: {machine['processor']}, {machine['cores']} cores, torch {hardware()['versions']['torch']}")

    @contextmanager
    def raceway(self, race: Race) -> Iterator[Raceway]:
        """A raceway on a fresh journal; its lanes end with the block."""
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite") as journal:
            job = journal.submit("race", race.model_dump(mode="json"))
            journal.claim("benchmark", "race")
            with Raceway(journal, job, race, self.executor, beat=lambda: None).running() as way:
                yield way

    def race(self, race: Race) -> RaceView:
        """A whole race."""
        with self.raceway(race) as way:
            run_phases(way)
            return way.view

    def check(self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """Print a figure beside its bound and remember whether it holds."""
        holds = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        bound = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
        print(f"  {'ok   ' if holds else 'SHORT'} {name}: {value:.4g} ({bound})", flush=True)
        self.failed += not holds

    def show(self, name: str, ratio: Ratio) -> None:
        """Print a ratio with its interval."""
        print(
            f"        {name}: {ratio.ratio:.4f} ({ratio.low:.4f} to {ratio.high:.4f}, {ratio.pairs} pairs)", flush=True
        )

    def end(self) -> None:
        """Exit 1 when anything fell short."""
        sys.exit(1 if self.failed else 0)


def make_race(model: str, prompt: str, *variants: dict[str, Any], **fields: Any) -> Race:
    """A race from the switches of its variants."""
    return Race.read(
        {"model": model, "prompt": prompt, "variants": [{"switches": switches} for switches in variants], **fields}
    )
