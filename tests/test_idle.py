"""The idle worker: it measures once, never while there is work, and gives way to a job at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.executors.local import LaneDied
from backend.idle import QUIET_S, IdleMeasurement
from backend.journal import Journal

pytestmark = pytest.mark.alone


class Lanes:
    """An executor whose lanes answer what they are told to, and which counts them."""

    def __init__(self, death: Exception | None = None) -> None:
        self.started = self.stopped = 0
        self.death = death

    def start(self, name: str, spec: dict) -> Lanes:
        self.started += 1
        return self

    def call(self, verb: str, waiting, **arguments) -> dict:
        waiting()
        if self.death:
            raise self.death
        return {
            "device": "cpu",
            "threads": 1,
            "vocab": 256,
            "peak_bytes": 9_000_000,
            "memory": {"weights_bytes": 1_000_000, "kv_bytes": 0},
        }

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def journal(home: Path) -> Journal:
    return Journal()


def quiet(journal: Journal, lanes: Lanes) -> IdleMeasurement:
    idle = IdleMeasurement(journal, lanes, beat=lambda: None)  # type: ignore[arg-type]
    idle._quiet_since -= QUIET_S + 1
    return idle


def test_it_waits_until_it_was_quiet_for_a_while(journal: Journal) -> None:
    lanes = Lanes()
    IdleMeasurement(journal, lanes, beat=lambda: None).rest()  # type: ignore[arg-type]
    assert lanes.started == 0
    idle = quiet(journal, lanes)
    idle.busy()
    idle.rest()
    assert lanes.started == 0


def test_it_measures_once_and_keeps_it(journal: Journal, home: Path) -> None:
    from backend.machine import kept_process_bytes

    lanes = Lanes()
    idle = quiet(journal, lanes)
    idle.rest()
    assert (lanes.started, lanes.stopped) == (1, 1)
    assert kept_process_bytes() == 8_000_000
    idle._quiet_since -= QUIET_S + 1
    idle.rest()
    assert lanes.started == 1


def test_a_job_ends_it_and_the_next_quiet_moment_begins_it_again(journal: Journal) -> None:
    lanes = Lanes()
    idle = quiet(journal, lanes)
    job = journal.submit("race", {})
    idle.rest()
    assert (lanes.started, lanes.stopped) == (1, 1)
    journal.cancel(job)
    idle._quiet_since -= QUIET_S + 1
    idle.rest()
    assert lanes.started == 2


def test_a_lane_that_dies_of_it_is_not_started_again(journal: Journal) -> None:
    lanes = Lanes(LaneDied("killed", "signal 9", "Race again."))
    idle = quiet(journal, lanes)
    idle.rest()
    idle._quiet_since -= QUIET_S + 1
    idle.rest()
    assert (lanes.started, lanes.stopped) == (1, 1)
