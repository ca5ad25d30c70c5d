"""Work that another process does: watched, told about, and ended when somebody asks for the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[float, str], None]  # share done, 0 to 1, and what is being done


class Cancelled(Exception):
    """Somebody asked for the end; what was downloaded stays for the next time."""


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    """Start a command in the project's root, deaf to the terminal; `environment` is added to this process's own."""
    root = Path(__file__).resolve().parents[1]
    return subprocess.Popen(
        command,
        cwd=root,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


class Watch:
    """Progress and cancellation around work that other processes do."""

    def __init__(self, progress: Progress, cancelled: Callable[[], bool]) -> None:
        """Pass progress on to `progress`, and ask `cancelled` five times a second."""
        self.progress = progress
        self._cancelled = cancelled

    def check(self) -> None:
        """Raise Cancelled when somebody asked for the end."""
        if self._cancelled():
            raise Cancelled("cancelled on request")

    def wait(self, process: subprocess.Popen[str], tell: Callable[[], None]) -> str:
        """Wait, telling and asking five times a second; returns what stands on stderr if it failed, else nothing."""
        try:
            while True:
                try:
                    _, complaint = process.communicate(timeout=0.2)
                    return (complaint or "unknown").strip() if process.returncode else ""
                except subprocess.TimeoutExpired:
                    tell()
                    self.check()
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
