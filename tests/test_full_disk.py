"""A disk that fills up in the middle of a race: the race ends with a card, what was measured stays, the next one runs.

The system refuses the worker's writes for a while, as it does on a full disk; nothing in the product knows of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from backend.replay import RaceView
from tests.test_race import Bench, racing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one process limit another's files")
LONG = {"max_new_tokens": 900, "prompt": "Once there was a map"}


@contextmanager
def no_room(worker: psutil.Process) -> Iterator[None]:
    """While it lasts the worker can write into no file: every write fails with EFBIG."""
    soft, hard = worker.rlimit(psutil.RLIMIT_FSIZE)
    worker.rlimit(psutil.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        worker.rlimit(psutil.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.stop()


def test_a_disk_that_fills_in_mid_race_ends_it_with_a_card_and_keeps_what_was_measured(
    bench: Bench, tiny_folder: Path
) -> None:
    job = bench.submit(tiny_folder, {"int8_weight_only": {}}, **LONG)
    bench.wait(job, racing)
    with no_room(psutil.Process(bench.process.pid)):
        until = time.monotonic() + 20
        while bench.lanes():
            assert time.monotonic() < until, "the race went on"
            time.sleep(0.05)
        written = RaceView().apply_all(bench.journal.events(job))
        time.sleep(1.5)
        assert bench.process.poll() is None  # it waits for room
        assert bench.journal.job(job).state == "running"
        waiting = bench.submit(tiny_folder, {"int8_weight_only": {}})
    view = bench.wait(job)
    assert view.state == bench.journal.job(job).state == "failed"
    assert view.card["field"] == "journal"
    assert "is full" in view.card["value"]
    assert "Free some space" in view.card["remedy"]
    assert 0 < len(view.baseline.ids) < 900
    assert view.baseline.ids == written.baseline.ids
    assert view.baseline.texts == written.baseline.texts
    assert bench.wait(waiting).state == "finished"


def test_a_worker_that_is_idle_on_a_full_disk_lives_on(bench: Bench, tiny_folder: Path) -> None:
    assert bench.wait(bench.submit(tiny_folder, {"cast": {}})).state == "finished"
    with no_room(psutil.Process(bench.process.pid)):
        time.sleep(3.0)  # it beats every two seconds
        assert bench.process.poll() is None
    assert bench.wait(bench.submit(tiny_folder, {"cast": {}})).state == "finished"
    assert bench.journal.workers()


def test_a_worker_that_waits_for_room_can_be_stopped(bench: Bench, tiny_folder: Path) -> None:
    job = bench.submit(tiny_folder, {"int8_weight_only": {}}, **LONG)
    seen = bench.wait(job, racing)
    with no_room(psutil.Process(bench.process.pid)):
        while bench.lanes():
            time.sleep(0.05)
        bench.process.terminate()
        bench.process.wait(10)
    bench.start()
    view = bench.wait(job)
    assert view.state == "failed"
    assert view.baseline.ids[: len(seen.baseline.ids)] == seen.baseline.ids
