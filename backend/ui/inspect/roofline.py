"""What bounds each part: memory, compute, or neither? Every part a point under this machine's own roofs."""

from __future__ import annotations

from typing import Any

from backend.inspection import InspectedLane
from backend.roofline import Point, bandwidth_of, points, shares
from backend.ui.figures import seconds, share, size, three
from backend.ui.inspect.plot import Chart, colour, figure, ink, part_title, sentences, title_of

SYMBOLS = {"decode": "circle", "prefill": "diamond-open"}
SIDES = {"decode": "middle right", "prefill": "middle left"}  # of a mark's name: the two marks of a part may coincide
MARKS = "filled marks are decode, open ones prefill."
SMALLEST = 0.01  # the share of a call below which a part is no point of its own


def lane_points(lane: InspectedLane, shape: str) -> list[Point]:
    """A lane's points in one call shape; none where it was not timed."""
    return points(lane.name, shape, lane.times, lane.machine) if lane.times and lane.machine else []


def chart(lanes: list[InspectedLane], dark: bool) -> Chart:
    """Operations a second against operations a byte, both on log scales, decode filled and prefill open."""
    machine = next((lane.machine for lane in lanes if lane.machine), None)
    drawn_points = [
        point
        for lane in lanes
        for shape in SYMBOLS
        for point in lane_points(lane, shape)
        if point.flops and point.spent_s > SMALLEST * lane.times[shape]["step_s"]
    ]
    if machine is None or not drawn_points:
        return Chart("Roofline", None, "No part has both a time and a count of its work.")
    drawn = figure("operations a byte", "operations a second", dark, 420)
    left = min(0.1, *(point.intensity / 2 for point in drawn_points))
    right = max(1000.0, *(point.intensity * 2 for point in drawn_points))
    for name, peak in machine["flops_per_s"].items():
        _roof(drawn, name, peak, bandwidth_of(machine), (left, right), dark)
    for point in drawn_points:
        _mark(drawn, point, dark)
    drawn.update_xaxes(type="log", dtick=1)
    drawn.update_yaxes(type="log", dtick=1, exponentformat="SI")
    return Chart("Roofline", drawn, sentences([machine_line(machine), MARKS, *_lines(lanes)], ""))


def _roof(drawn: Any, name: str, peak: float, bandwidth: float, ends: tuple[float, float], dark: bool) -> None:
    """The slope of memory up to the ridge, then the flat peak of one number type."""
    ridge = peak / bandwidth
    x = [ends[0], ridge, max(ends[1], ridge)]
    y = [ends[0] * bandwidth, peak, peak]
    drawn.add_scatter(x=x, y=y, mode="lines", line={"color": ink(dark), "width": 1}, hoverinfo="skip")
    drawn.add_scatter(
        x=[x[-1]], y=[peak], mode="text", text=[f"{name} "], textposition="top left", hoverinfo="skip", cliponaxis=False
    )


def _mark(drawn: Any, point: Point, dark: bool) -> None:
    drawn.add_scatter(
        x=[point.intensity],
        y=[point.rate],
        mode="markers+text",
        text=[f"{point.lane} {part_title(point.part)}"],
        textposition=SIDES[point.shape],
        textfont={"size": 10},
        marker={"symbol": SYMBOLS[point.shape], "size": 9, "color": colour(point.lane, dark)},
        hovertemplate=(
            f"{point.lane} {point.shape} {part_title(point.part)}: %{{x:.3g}} operations a byte, "
            f"%{{y:.3g}} a second, bound by {point.bound}<extra></extra>"
        ),
    )


def machine_line(machine: dict[str, Any]) -> str:
    """What this machine reached, in words."""
    peaks = ", ".join(f"{three(rate / 1e9)} G operations/s in {name}" for name, rate in machine["flops_per_s"].items())
    kept = "measured earlier and kept" if machine.get("kept") else f"measured in {seconds(machine['spent_s'])}"
    bandwidth = f"{size(machine['read_bytes_per_s'])}/s read, {size(machine['copy_bytes_per_s'])}/s copied"
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    return f"this machine with {threads}: {bandwidth} over {size(machine['buffer_bytes'])}, {peaks} ({kept})."


def _lines(lanes: list[InspectedLane]) -> list[str]:
    """A sentence for each lane and call shape: what share of its time is bound by what."""
    found = []
    for lane in lanes:
        for shape in SYMBOLS:
            if told := lane_points(lane, shape):
                whole = sum(lane.times[shape]["parts"].values())
                bound = sorted(shares(told, whole).items(), key=lambda item: -item[1])
                named = ", ".join(f"{share(part)} by {name}" for name, part in bound if part > 0.005)
                found.append(f"{title_of(lane)}, {shape}: the time is bound {named}.")
    return found


def rows(lanes: list[InspectedLane]) -> list[dict[str, Any]]:
    """The points as a table, and what is said of each."""
    return [
        {
            "Lane": point.lane,
            "Call": point.shape,
            "Part": part_title(point.part),
            "Time, ms": 1000 * point.spent_s,
            "MB moved": point.moved_bytes / 1e6,
            "M operations": point.flops / 1e6,
            "GB/s": point.moved_bytes / point.spent_s / 1e9,
            "Explained by the roof": point.explained,
            "Bound by": point.bound,
        }
        for lane in lanes
        for shape in SYMBOLS
        for point in lane_points(lane, shape)
    ]
