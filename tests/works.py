"""A worker on a state folder of its own, for tests that hand it jobs and read what became of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import psutil

from backend.eventview import EventView
from backend.journal import Journal

V = TypeVar("V", bound=EventView[Any])


class Works(Generic[V]):
    """The process and its journal. A subclass names the view of its jobs, and how one is submitted."""

    view: ClassVar[type[Any]]

    def __init__(self, home: Path) -> None:
        self.home = home
        self.journal = Journal(home / "journal.sqlite")
        self.start()

    def start(self) -> None:
        environment = os.environ | {"HEADWAY_HOME": str(self.home)}
        self.process = subprocess.Popen([sys.executable, "-m", "backend.worker"], env=environment)

    def wait(self, job: int, until: Callable[[V], bool] | None = None, limit_s: float = 150.0) -> V:
        """The job's view at its end, or as soon as `until` holds."""
        view, deadline = self.view(), time.monotonic() + limit_s
        while time.monotonic() < deadline:
            asked = self.journal.job(job)
            view.apply_all(self.journal.events(job, view.last_id))
            if (asked and asked.ended) or (until is not None and until(view)):
                return view  # type: ignore[no-any-return]
            time.sleep(0.05)
        raise TimeoutError(f"job {job}: {view.phase}")

    def lanes(self) -> list[psutil.Process]:
        """The processes that hold models: the fork server's children."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in children if parent_of(p) not in (None, self.process.pid)]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.journal.close()


def parent_of(process: psutil.Process) -> int | None:
    """The parent's number; None for a process that has just ended."""
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None
