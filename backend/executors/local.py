"""Lanes on this machine: forked from a server that has torch imported already, so that a lane starts in moments."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from backend.laneprocess import serve
from backend.recipe.base import RecipeError
from backend.recipe.training import LaneTask

POLL_S = 0.1


class LaneDied(Exception):
    """The lane's process ended or gave up: `event` is the data of a `lane_failed` event."""

    def __init__(self, cause: str, detail: str, remedy: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.event = {"cause": cause, "detail": detail, "remedy": remedy}


class LocalLane:
    """A lane's process and the pipe to it."""

    def __init__(self, name: str, process: BaseProcess, pipe: Connection) -> None:
        self.name = name
        self.process = process
        self._pipe = pipe

    def call(
        self,
        verb: str,
        waiting: Callable[[], None] = lambda: None,
        progress: Callable[[float, str], None] = lambda share, text: None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Let the lane do one thing and wait for it; `waiting` runs ten times a second and may raise to give up.

        Raises:
            RecipeError: when the lane refused the recipe.
            LaneDied: when it failed or its process ended.
        """
        oom_before = _oom_kills()
        try:
            self._pipe.send((verb, arguments))
            while True:
                while not self._pipe.poll(POLL_S):
                    waiting()
                kind, data = self._pipe.recv()
                if kind != "progress":
                    break
                progress(data["share"], data["text"])
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise self._death(oom_before) from None
        if kind == "refused":
            raise RecipeError(**data)
        if kind == "failed":
            raise LaneDied(**data)
        return dict(data)

    def _death(self, oom_before: int) -> LaneDied:
        self.process.join(5)
        code = self.process.exitcode
        if _oom_kills() > oom_before:
            return LaneDied(
                "out of memory", "The system ended the lane to get memory back.", "Use fewer bits or lanes."
            )
        if code is not None and code < 0:
            return LaneDied("killed", f"The lane's process was ended by signal {-code}.", "Race again.")
        return LaneDied("exited", f"The lane's process ended with code {code}.", "Race again.")

    def stop(self) -> None:
        """End the process at once: a lane holds nothing that is worth waiting for."""
        self._pipe.close()
        self.process.kill()
        self.process.join()


class LocalExecutor:
    """Starts lanes as processes of this machine."""

    def __init__(self, preload: Sequence[str] = ()) -> None:
        """`preload` names modules with switches and techniques of one's own, which lanes shall know."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*preload, "backend.executors.preload"])

    def prepare(self) -> None:
        """Start the fork server, which imports in the background."""
        from multiprocessing.forkserver import ensure_running

        ensure_running()

    def start(self, name: str, spec: dict[str, Any], task: LaneTask = "decoder") -> LocalLane:
        """Start a lane's process; it loads nothing until it is told to."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, name, spec, task), name=f"lane-{name}", daemon=True)
        process.start()
        theirs.close()
        return LocalLane(name, process, ours)


def _oom_kills() -> int:
    """How many processes the kernel has ended for memory since it started; 0 where it does not count."""
    counters = Path("/proc/vmstat")
    if not counters.exists():
        return 0
    return sum(int(line.split()[1]) for line in counters.read_text().splitlines() if line.startswith("oom_kill "))
