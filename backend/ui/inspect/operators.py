"""Which operators ran, how often, and how long? One profiled run as a table."""

from __future__ import annotations

from typing import Any

from backend.inspection import InspectedLane
from backend.ui.figures import seconds, share
from backend.ui.inspect.plot import title_of


def rows(lane: InspectedLane, shape: str) -> list[dict[str, Any]]:
    """One row an operator, the longest first; times of all runs together."""
    found = lane.operators.get(shape, {}).get("rows", [])
    whole = sum(row[2] for row in found) or 1.0
    return [
        {"Operator": name, "Calls": calls, "Self, ms": 1000 * own, "Share": own / whole, "Total, ms": 1000 * total}
        for name, calls, own, total in found
    ]


def words(lane: InspectedLane, shape: str) -> str:
    """The operators that took most, and what the profiler itself cost."""
    found = lane.operators.get(shape)
    if not found or not found["rows"]:
        return f"{title_of(lane).capitalize()} was not profiled."
    whole = sum(row[2] for row in found["rows"])
    named = ", ".join(f"{row[0]} {share(row[2] / whole)}" for row in found["rows"][:3])
    calls = sum(row[1] for row in found["rows"])
    runs = f"{found['runs']} steps" if shape == "decode" else "one reading of the prompt"
    times = f"{seconds(found['profiled_s'])} under the profiler, {seconds(found['plain_s'])} without"
    return (
        f"{title_of(lane).capitalize()}, {runs}: {named}. {calls} calls in all; {times}, so shares are near the truth "
        f"and sums are not."
    )
