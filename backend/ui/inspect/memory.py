"""When is how much memory held, and what is the peak made of? Resident bytes over the run with its phases marked."""

from __future__ import annotations

from backend.inspection import InspectedLane, explain_peak
from backend.ui.figures import size
from backend.ui.inspect.plot import Chart, colour, figure, part_title, title_of
from backend.ui.palette import look

NAMED = 5  # parts of the peak in words


def charts(lanes: list[InspectedLane], dark: bool) -> list[Chart]:
    """One plot a lane, on the same axes."""
    watched = [lane for lane in lanes if lane.timeline]
    if not watched:
        return [Chart("Memory over the run", None, "No lane's memory was watched to the end.")]
    end_s = max(lane.timeline["phases"][-1]["end_s"] for lane in watched)
    most = max(phase["peak_bytes"] for lane in watched for phase in lane.timeline["phases"])
    return [_chart(lane, end_s, most, dark) for lane in watched]


def _chart(lane: InspectedLane, end_s: float, most: float, dark: bool) -> Chart:
    timeline = lane.timeline
    drawn = figure("s since the lane began", "MB", dark)
    one = look(lane.name)
    drawn.add_scatter(
        x=timeline["at_s"],
        y=[held / 1e6 for held in timeline["resident_bytes"]],
        mode="lines",
        line={"color": one.colour(dark), "dash": one.dash, "width": 2},
        hovertemplate="%{x:.3g} s: %{y:.4g} MB<extra></extra>",
    )
    for number, phase in enumerate(timeline["phases"]):
        shade = "rgba(140,150,165,0.12)" if number % 2 else "rgba(140,150,165,0.22)"
        drawn.add_vrect(x0=phase["start_s"], x1=phase["end_s"], fillcolor=shade, line_width=0, layer="below")
        wide = phase["end_s"] - phase["start_s"] > 0.08 * end_s
        drawn.add_annotation(
            x=(phase["start_s"] + phase["end_s"]) / 2,
            y=1.12 * most / 1e6,
            text=phase["name"],
            showarrow=False,
            textangle=0 if wide else -90,
            yanchor="top",
        )
    peak = lane.peak
    if peak:
        drawn.add_hline(y=peak["peak_bytes"] / 1e6, line={"width": 1, "dash": "dot", "color": colour(lane.name, dark)})
    drawn.update_xaxes(range=[0, 1.02 * end_s])
    drawn.update_yaxes(range=[0, 1.15 * most / 1e6])
    return Chart(f"Memory of {title_of(lane)}", drawn, peak_line(lane))


def _titled(name: str) -> str:
    """What was held, in words: 'feed_forward weights' as 'feed-forward weights'."""
    part, found, _ = name.partition(" weights")
    if not found:
        return name
    return "weights of no part" if part == "python" else f"{part_title(part)} weights"


def peak_line(lane: InspectedLane) -> str:
    """When it peaked and what was held then."""
    peak = lane.peak
    if peak is None:
        return ""
    parts = explain_peak(lane.timeline)
    rest = parts.pop("not explained", 0)
    told = [f"{_titled(name)} {size(held)}" for name, held in parts.items()][:NAMED]
    told += [f"not explained by these {size(rest)}"] if rest else []
    phases = ", ".join(f"{phase['name']} {size(phase['peak_bytes'])}" for phase in lane.timeline["phases"])
    first = f"Peak {size(peak['peak_bytes'])} in the phase {peak['name']}"
    return f"{first}: {', '.join(told)}. Peaks by phase: {phases}."
