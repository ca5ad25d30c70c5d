"""How many threads of this process really compute, from the scheduler's own account."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

TASKS = Path("/proc/self/task")
LEAST = 0.02  # of the busiest thread's time; a thread that sleeps has none at all


def busy_threads(call: Callable[[], object]) -> int | None:
    """Threads that spent time on a core while a call ran; None where the kernel keeps no account (not Linux)."""
    before = _on_core_ns()
    call()
    spent = [now - before.get(task, 0) for task, now in _on_core_ns().items()]
    most = max(spent, default=0)
    return sum(time > LEAST * most for time in spent) if most else None


def _on_core_ns() -> dict[str, int]:
    """Nanoseconds on a core by thread, the first figure of its schedstat."""
    found = {}
    for task in TASKS.glob("*/schedstat"):
        try:
            found[task.parent.name] = int(task.read_text().split()[0])
        except (OSError, IndexError):  # the thread ended meanwhile
            continue
    return found
