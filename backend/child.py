"""One supervised process: started again when it dies, at growing distances, and ended with everything it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from backend.tether import die_with_parent

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
STEADY_S = 60.0  # who lived this long starts again at once
PATIENCE_S = 8.0  # between the request to stop and the end by force
LARGEST_LOG = 5_000_000  # bytes; then the log begins again and the old one is kept beside it


class Child:
    """A Python process in a process group of its own: Ctrl-C does not reach it, and the group can be ended as one.

    Not in a session of its own: Linux shares the cores evenly between sessions (autogroups), and niceness would then
    count only within one, so that nice pages would take as much from the lanes as any other process.
    """

    def __init__(
        self, name: str, arguments: list[str], folder: Path, environment: dict[str, str], log: Path, niceness: int = 0
    ) -> None:
        self.name = name
        self.log = log
        self.deaths = 0  # in a row, each after less than STEADY_S
        self._command = [sys.executable, *arguments]
        self._folder = folder
        self._environment = environment
        self._niceness = niceness
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._next_start = 0.0

    def look_after(self) -> None:
        """Start it when it does not run and its time has come."""
        if self._process is not None and self._process.poll() is not None:
            self._note_death(self._process.returncode)
        if self._process is None and time.monotonic() >= self._next_start:
            self._start()

    def _note_death(self, code: int) -> None:
        self._signal(signal.SIGKILL)  # what it had started and left behind
        self._process = None
        lived = time.monotonic() - self._started
        self.deaths = 1 if lived > STEADY_S else self.deaths + 1
        wait = 0.0 if lived > STEADY_S else min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (self.deaths - 1))
        self._next_start = time.monotonic() + wait
        how = f"signal {-code}" if code < 0 else f"code {code}"
        print(f"The {self.name} ended with {how}: it is started again (see {self.log}).", flush=True)

    def _start(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=self._prepare,  # safe: the supervisor has one thread
            )
        self._started = time.monotonic()

    def _prepare(self) -> None:
        die_with_parent()
        if self._niceness:
            os.nice(self._niceness)

    def ask_to_stop(self) -> None:
        """Ask the process itself: it ends what it started."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Wait for it, and end it and its group by force when it takes too long."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):  # the whole group is gone: nothing was left behind
                os.killpg(self._process.pid, number)

    def last_words(self, lines: int = 12) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
