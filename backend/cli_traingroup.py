"""A training that several processes bear: `accelerate launch -m backend.cli_traingroup RECIPE`, or another launcher's.

The first process keeps the journal and tells; the others follow it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from backend import cli_train
from backend.cli_race import BAD_RECIPE, FINISHED, show
from backend.ending import end_well
from backend.executors.executor import Executor
from backend.journal import GROUP, Job, Journal
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.trained import TrainingView
from backend.trainway import Trainings
from backend.worker import BEAT_S
from backend.workername import process_name


class Group:
    """One training and its job in the journal, borne by processes that no worker has started."""

    def __init__(self, journal: Journal, asked: Training) -> None:
        self.journal, self.view = journal, TrainingView()
        self.name = f"{GROUP}{process_name()}"
        self._beaten, self._shown = 0.0, ""
        self.beat()
        job = journal.submit("train", asked.model_dump(mode="json"), owner="command line", worker=self.name)
        self.job: Job = next(found for found in journal.jobs("train") if found.id == job)

    def beat(self) -> None:
        """Say that the group lives, so that no worker takes its job up, and show how far it is."""
        if time.monotonic() - self._beaten > BEAT_S:
            self.journal.beat(self.name, os.getpid())
            self._beaten = time.monotonic()

    def train(self, executor: Executor, stopping: threading.Event) -> None:
        """Train to the end, or until somebody asks for it."""
        trainings = Trainings(self.journal, self.name, executor, self._look_up)
        trainings.take(self.job)
        try:
            while self.journal.state(self.job.id) == "running":
                if stopping.is_set():
                    self.journal.cancel(self.job.id)
                end_well(self.journal, self.job, trainings.turn, stopping)
        finally:
            trainings.leave()
            self.journal.leave(self.name)
            self._show()
            print(file=sys.stderr)

    def _look_up(self) -> None:
        self.beat()
        self._show()

    def _show(self) -> None:
        self.view.apply_all(self.journal.events(self.job.id, self.view.last_id))
        self._shown = show(self.view.phase, self._shown)


def bear(asked: Training, executor: Executor, as_json: bool) -> int:
    """Train with a lane that `executor` starts; the exit code. After Ctrl-C the same command goes on where it was."""
    with Journal() as journal, _stopping() as stopping:
        group = Group(journal, asked)
        group.train(executor, stopping)
        return cli_train.tell(group.view, asked, as_json)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step ends and a checkpoint is written."""
    event = threading.Event()
    before = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(args: argparse.Namespace) -> int:
    """Train as one of the processes that a launcher has started."""
    from backend.engine import quiet  # noqa: F401  before torch, for which --help need not wait

    # isort: split
    from backend.engine.training.replicas import join
    from backend.executors.here import HereExecutor
    from backend.traingroup import follow

    leads = os.environ.get("RANK", "0") == "0"
    try:
        asked = cli_train.read_training(args.what, args)
        replicas = join()
        if replicas.leads:
            print(_how_many(replicas.count), file=sys.stderr)
            return bear(asked, HereExecutor(replicas), args.json)
        for number in (signal.SIGINT, signal.SIGTERM):  # the first process ends the group, with a checkpoint
            signal.signal(number, signal.SIG_IGN)
        follow(asked.model_dump(mode="json"), replicas)
    except RecipeError as error:
        if leads or error.field == "processes":  # what all refuse is said once
            print(f"headway: {error}", file=sys.stderr)
        return BAD_RECIPE
    return FINISHED


def _how_many(count: int) -> str:
    if count == 1:
        return "One process trains. More are started by a launcher: docs/scale.md."
    return f"{count} processes train together."


def main() -> int:
    """Train in the processes of a launcher: exit 0 when it is done, 2 for what cannot be, 3 when it ended before."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m backend.cli_traingroup", description=main.__doc__)
    cli_train.add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
