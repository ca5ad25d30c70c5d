"""What Prometheus is told: counters, gauges and histograms in its text format (version 0.0.4)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator

Label = tuple[tuple[str, str], ...]
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class Counter:
    """A number that only grows, by labels."""

    kind = "counter"

    def __init__(self, name: str, help: str) -> None:
        self.name, self.help = name, help
        self._values: dict[Label, float] = {}

    def add(self, amount: float = 1, **labels: str) -> None:
        """Let it grow."""
        key = tuple(sorted(labels.items()))
        self._values[key] = self._values.get(key, 0) + amount

    def samples(self) -> Iterator[str]:
        """Its lines."""
        for labels, value in sorted(self._values.items()) or [((), 0.0)]:
            yield _line(self.name, labels, value)


class Gauge:
    """A number that is read when it is asked for; `read` gives None where there is none."""

    def __init__(self, name: str, help: str, read: Callable[[], float | None], kind: str = "gauge") -> None:
        self.name, self.help, self.kind = name, help, kind
        self._read = read

    def samples(self) -> Iterator[str]:
        """Its line."""
        value = self._read()
        if value is not None:
            yield _line(self.name, (), value)


class Histogram:
    """How often a time was at most so long."""

    kind = "histogram"

    def __init__(self, name: str, help: str, bounds: tuple[float, ...] = SECONDS) -> None:
        self.name, self.help = name, help
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def see(self, seconds: float) -> None:
        """Count one time."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def samples(self) -> Iterator[str]:
        """Its buckets, each with all below it, the sum and the count."""
        total = 0
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            total += count
            yield _line(f"{self.name}_bucket", (("le", "+Inf" if bound == math.inf else f"{bound:g}"),), total)
        yield _line(f"{self.name}_sum", (), self._sum)
        yield _line(f"{self.name}_count", (), total)


Metric = Counter | Gauge | Histogram


def exposition(metrics: list[Metric]) -> str:
    """All of them as text."""
    lines: list[str] = []
    for metric in metrics:
        samples = list(metric.samples())
        if samples:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *samples]
    return "\n".join(lines) + "\n"


def _line(name: str, labels: Label, value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{inner}}} {value:.10g}" if inner else f"{name} {value:.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
