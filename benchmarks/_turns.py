"""What the way through the worker costs a training, and what kills leave of it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from backend.executors.local import LocalExecutor
from backend.journal import Journal
from backend.metrics import Ratio, paired_ratio
from backend.recipe.training import Training
from backend.trained import STUDENT, TrainingView
from backend.trainlane import TrainLane
from backend.trainway import Trainway

ROUNDS = 8
ROUND_STEPS = 12
WATCH = """
import sys, time
from pathlib import Path
from backend.journal import Journal
from backend.trained import STUDENT, TrainingView
view = TrainingView()
with Journal(Path(sys.argv[1])) as journal:
    while True:
        view.apply_all(journal.events(int(sys.argv[2]), view.last_id))
        time.sleep(0.2)
"""


def throughput(asked: dict[str, Any]) -> Ratio:
    """Steps a second through lane, turns and journal with a page that reads along, over those of a bare loop.

    Both have a process of their own and take turns on the machine; no look and no checkpoint falls into either.
    """
    order = Training.read(asked)
    bare = TrainLane("bare", asked | {"name": "bare"}, lambda share, text: None)
    bare.load()
    ours, loop = [], []
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        job = journal.submit("train", asked)
        journal.claim("benchmark", "train")
        way = Trainway(journal, job, order, LocalExecutor(), lambda: None)
        watcher = subprocess.Popen([sys.executable, "-c", WATCH, str(journal.path), str(job)])
        try:
            _through(way, journal, job, 2)  # loads, looks at the untrained student, and warms up
            for _ in range(2):
                bare.trainer.step()
            for turn in range(ROUNDS):
                for who in (ours, loop) if turn % 2 else (loop, ours):
                    time.sleep(0.05)  # the other one's threads come to rest
                    if who is loop:
                        began = time.perf_counter()
                        for _ in range(ROUND_STEPS):
                            bare.trainer.step()
                        who.append((time.perf_counter() - began) / ROUND_STEPS)
                    else:
                        who.append(_through(way, journal, job, ROUND_STEPS))
        finally:
            watcher.kill()
            way.stop()
    return paired_ratio(loop, ours)


def _through(way: Trainway, journal: Journal, job: int, steps: int) -> float:
    """Seconds a step of so many steps at least, through the worker's turns."""
    first = _steps(journal, job)
    began, taken = time.perf_counter(), 0
    while taken < steps:
        way.turn()
        taken = _steps(journal, job) - first
    return (time.perf_counter() - began) / taken


def _steps(journal: Journal, job: int) -> int:
    last = journal.last(job, "stepped")
    return int(last.data["number"]) + 1 if last else 0


class Interrupted:
    """A training in a worker that is killed again and again: now the lane, now the worker with it."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._environment = environment
        self.journal = Journal(home / "journal.sqlite")
        self._start()

    def _start(self) -> None:
        self._worker = subprocess.Popen([sys.executable, "-m", "backend.worker"], env=self._environment)

    def run(self, asked: dict[str, Any], kills: int, seed: int = 1) -> TrainingView:
        """Train, with so many kills at random moments; its view at the end."""
        chance = random.Random(seed)
        job = self.journal.submit("train", asked)
        view = TrainingView()
        for number in range(kills):
            self._until(view, job, went_on=number)
            time.sleep(chance.uniform(0.5, 6.0))
            if self.journal.state(job) != "running":
                break
            self._kill(job, worker=number % 2 == 1)
        self._until(view, job)
        self._worker.terminate()
        self._worker.wait(20)
        return view

    def _kill(self, job: int, worker: bool) -> None:
        if worker:
            self._worker.send_signal(signal.SIGKILL)
            self._worker.wait()
            self._start()
            time.sleep(1.0)
            return
        for process in psutil.Process(self._worker.pid).children(recursive=True):
            parent = process.parent()
            if parent is not None and parent.pid != self._worker.pid:
                process.kill()
        while self.journal.state(job) == "running":
            time.sleep(0.05)
        self.journal.resume(job)

    def _until(self, view: TrainingView, job: int, went_on: int | None = None) -> None:
        """Until it has gone on so often, or has ended."""
        while True:
            view.apply_all(self.journal.events(job, view.last_id))
            lane = view.lane(STUDENT)
            if (went_on is not None and lane.step and len(lane.notes) >= went_on) or self.journal.state(job) in (
                "finished",
                "failed",
                "cancelled",
            ):
                view.apply_all(self.journal.events(job, view.last_id))
                return
            time.sleep(0.1)
