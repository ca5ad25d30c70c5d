"""Conditions: what else the machine did while something was measured. Read before, during and after; judged elsewhere.

Everything comes from psutil and /proc; what a system does not count is left out. The facts and what they give reason
to doubt are described in backend/suspicion.py.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

LOOK_S = 1.0  # between two looks: a look at all processes takes some milliseconds
MOST_OTHERS = 5
_THROTTLES = "cpu*/thermal_throttle/core_throttle_count"
_CORES = Path("/sys/devices/system/cpu")


class Conditions:
    """Watches the machine from its construction on. `look` between turns, `glance` while a lane computes."""

    def __init__(self) -> None:
        self._began = self._looked = time.monotonic()
        self._cpu, self._swap, self._throttles = psutil.cpu_times(), psutil.swap_memory(), throttle_events()
        self._seen: dict[tuple[int, float], float | None] = {}  # (pid, start) -> CPU seconds at the last look, if told
        self._used: defaultdict[str, float] = defaultdict(float)  # CPU seconds of others, by name
        self._own_s = 0.0
        self._frequencies: list[float] = []
        self._glanced = 0.0
        self._read_processes(first=True)

    def glance(self) -> None:
        """Read the clock of the fastest core, at most once a second: an idle core's clock says nothing."""
        now = time.monotonic()
        if now - self._glanced < LOOK_S:
            return
        self._glanced = now
        if mhz := fastest_mhz():
            self._frequencies.append(mhz)

    def look(self) -> None:
        """Read what every process used, at most once a second: one that ends between two looks is not named."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._read_processes()

    def facts(self) -> dict[str, Any]:
        """What was seen since construction, as data of a `conditions` event."""
        self._read_processes()
        seconds = time.monotonic() - self._began
        cores = psutil.cpu_count() or 1
        cpu, swap, throttles = psutil.cpu_times(), psutil.swap_memory(), throttle_events()
        others = sorted(self._used.items(), key=lambda item: -item[1])
        unseen_s = _busy_s(cpu) - _busy_s(self._cpu) - self._own_s - sum(self._used.values())
        stolen_s = getattr(cpu, "steal", 0.0) - getattr(self._cpu, "steal", 0.0)
        counted = None if throttles is None or self._throttles is None else throttles - self._throttles
        return {
            "seconds": seconds,
            "cores": cores,
            "own_cores": self._own_s / seconds,
            "others": [{"name": name, "cores": used / seconds} for name, used in others[:MOST_OTHERS] if used],
            "unseen_cores": max(0.0, unseen_s / seconds),
            "steal_share": stolen_s / seconds / cores,
            "swapped_in_bytes": swap.sin - self._swap.sin,
            "swapped_out_bytes": swap.sout - self._swap.sout,
            "frequency_mhz": self._frequencies,
            "throttle_events": counted,
        }

    def _read_processes(self, first: bool = False) -> None:
        """Add up what every process used since the last look: ours by itself, others by their names."""
        ours = own_pids()
        seen: dict[tuple[int, float], float | None] = {}
        for process in psutil.process_iter(["pid", "name", "create_time", "cpu_times"]):
            info = process.info
            key, times = (info["pid"], info["create_time"]), info["cpu_times"]
            total = None if times is None else times.user + times.system
            seen[key] = total
            before = self._seen.get(key, 0.0)  # one that is new has used all its time since the last look
            if first or total is None or before is None:
                continue  # it ended, or may not be looked at
            if info["pid"] in ours:
                self._own_s += total - before
            else:
                self._used[info["name"] or "without a name"] += total - before
        self._seen = seen
        self._looked = time.monotonic()


def own_pids() -> set[int]:
    """This process, what it started, and the pages where `backend up` started both (benchmarks/ui.py weighs them)."""
    me = psutil.Process()
    top, parent = me, me.parent()
    if parent is not None and _is_up(parent):
        top = parent
    return {me.pid, top.pid, *(child.pid for child in top.children(recursive=True))}


def _is_up(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[1:4] == ["-m", "backend", "up"]
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return False


def fastest_mhz() -> float | None:
    """The clock of the fastest core now, in MHz; None where the system does not tell."""
    try:
        cores = psutil.cpu_freq(percpu=True)
    except (OSError, NotImplementedError):
        return None
    return max((core.current for core in cores or ()), default=None)


def throttle_events() -> int | None:
    """How often any core was throttled for its heat since the system started; None where nothing counts that."""
    counters = sorted(_CORES.glob(_THROTTLES))
    try:
        return sum(int(counter.read_text()) for counter in counters) if counters else None
    except (OSError, ValueError):
        return None


def _busy_s(times: Any) -> float:
    """Seconds that all cores together worked, the host's theft left out; guests are part of user time."""
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")))
