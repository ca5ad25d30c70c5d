"""The timeline: a lane's resident bytes over its whole life, read by a thread beside the work, with phases marked."""

from __future__ import annotations

import threading
import time
from typing import Any

from backend.engine.memory import MemoryMeter

PERIOD_S = 0.01
MOST_POINTS = 600


class Timeline:
    """Watches one lane's memory from `watch_memory` on. Its methods are verbs of the lane; it runs only when asked."""

    def __init__(self, meter: MemoryMeter) -> None:
        self._meter = meter
        self._points: list[tuple[float, int]] = []  # s since the start, resident bytes
        self._phases: list[dict[str, Any]] = []
        self._began = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch_memory(self, phase: str) -> dict[str, Any]:
        """Begin a phase; the first one starts the readings."""
        if self._thread is None:
            self._began = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)
            self._thread.start()
        self._end_phase()
        self._meter.start_peak()
        self._phases.append({"name": phase, "start_s": self._now()})
        return {}

    def end_watch(self) -> dict[str, Any]:
        """Stop reading. `phases` with start_s, end_s and peak_bytes, and the readings `at_s`, `resident_bytes`."""
        self._end_phase()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        points = thinned(self._points)
        return {
            "phases": self._phases,
            "at_s": [round(at, 4) for at, _ in points],
            "resident_bytes": [held for _, held in points],
        }

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _end_phase(self) -> None:
        """The phase's peak: the kernel's mark where it has one (it sees what falls between two readings)."""
        if not self._phases:
            return
        phase = self._phases[-1]
        phase["end_s"] = self._now()
        read = [held for at, held in self._points if at >= phase["start_s"]]
        phase["peak_bytes"] = max([*read, self._meter.peak_bytes])

    def _run(self) -> None:
        while not self._stop.is_set():
            self._points.append((self._now(), self._meter.resident_bytes))
            self._stop.wait(PERIOD_S)


def thinned(points: list[tuple[float, int]], most: int = MOST_POINTS) -> list[tuple[float, int]]:
    """At most so many points: of each stretch the highest, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    stride = -(-len(points) // most)
    return [max(points[i : i + stride], key=lambda point: point[1]) for i in range(0, len(points), stride)]
