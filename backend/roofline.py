"""The roofline: what bounds a part of a model, by its work, its measured time, and what the machine reaches.

A part must move `bytes` and compute `flops` (engine/inspect/work.py). Memory alone would take bytes / bandwidth,
arithmetic alone flops / peak. Where the longer of the two explains at least half of the measured time, that is what
bounds the part; otherwise it is overhead: calls, Python, or a kernel that uses neither well. The attainable rate at an
intensity of i operations a byte is min(peak, i bandwidth) (Williams, Waterman and Patterson 2009, Roofline).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXPLAINED = 0.5  # the share of the measured time from which on a roof is called what bounds


@dataclass(frozen=True)
class Point:
    """One part of one lane in one call shape."""

    lane: str
    shape: str
    part: str
    spent_s: float
    moved_bytes: float
    flops: float
    memory_s: float  # what moving alone would take
    compute_s: float  # what computing alone would take

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.moved_bytes if self.moved_bytes else 0.0

    @property
    def rate(self) -> float:
        """Operations a second that it reached."""
        return self.flops / self.spent_s

    @property
    def explained(self) -> float:
        """The share of its time that the nearer roof explains; above 1 where its data came out of a cache."""
        return max(self.memory_s, self.compute_s) / self.spent_s

    @property
    def bound(self) -> str:
        """'memory', 'compute' or 'overhead'."""
        if self.explained < EXPLAINED:
            return "overhead"
        return "memory" if self.memory_s >= self.compute_s else "compute"


def points(lane: str, shape: str, times: Mapping[str, Any], machine: Mapping[str, Any]) -> list[Point]:
    """Every part that has both a time and some work, the longest first.

    Args:
        times: a lane's `part_times` event.
        machine: its `machine` event.
    """
    bandwidth, peak = bandwidth_of(machine), peak_of(machine, str(times.get("dtype", "float32")))
    found = []
    for part, spent_s in times[shape]["parts"].items():
        work = times["work"][shape].get(part)
        if work is None or spent_s <= 0:
            continue
        moved, flops = work["bytes"], work["flops"]
        found.append(Point(lane, shape, part, spent_s, moved, flops, moved / bandwidth, flops / peak))
    return sorted(found, key=lambda point: -point.spent_s)


def bandwidth_of(machine: Mapping[str, Any]) -> float:
    """Bytes a second from memory: the better of reading and copying."""
    return max(float(machine["read_bytes_per_s"]), float(machine["copy_bytes_per_s"]))


def peak_of(machine: Mapping[str, Any], dtype: str) -> float:
    """Operations a second in this number type, or in float32 where it was not measured."""
    rates: Mapping[str, float] = machine["flops_per_s"]
    return float(rates.get(dtype, rates["float32"]))


def shares(found: list[Point], whole_s: float) -> dict[str, float]:
    """The share of a whole call that each bound takes; what has no work at all (Python) is overhead."""
    bound = {"memory": 0.0, "compute": 0.0, "overhead": 0.0}
    for point in found:
        bound[point.bound] += point.spent_s / whole_s
    bound["overhead"] += max(0.0, 1 - sum(bound.values()))
    return bound
