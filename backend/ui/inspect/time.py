"""Which part and which layer takes the time? Stacked bars beside the baseline, and a line over the layers."""

from __future__ import annotations

from typing import Any

from backend.inspection import InspectedLane
from backend.ui.figures import seconds, share
from backend.ui.inspect.plot import Chart, colour, figure, ink, ordered, part_title, pattern, sentences, title_of
from backend.ui.palette import look

CALLS = {"decode": "one step of decoding", "prefill": "reading the prompt"}
HALO = ", ".join(["0 0 3px {0}"] * 6)  # around a name, which else drowns in the pattern of its bar
LABELLED = 0.07  # the share of the longest bar from which on a part carries its name
NAMED = 4  # parts in words


def by_part(lanes: list[InspectedLane], shape: str, dark: bool) -> Chart:
    """Seconds of one call by part, a bar a lane."""
    timed = [lane for lane in lanes if lane.times]
    title = f"Time by part: {CALLS[shape]}"
    if not timed:
        return Chart(title, None, _why_none(lanes))
    drawn = figure("ms", "", dark, 72 + 44 * len(timed))
    longest = max(sum(lane.times[shape]["parts"].values()) for lane in timed)
    for part in ordered({part: 0 for lane in timed for part in lane.times[shape]["parts"]}):
        spent = [lane.times[shape]["parts"].get(part, 0.0) for lane in timed]
        drawn.add_bar(
            orientation="h",
            y=[lane.name for lane in timed],
            x=[1000 * one for one in spent],
            name=part_title(part),
            text=[part_title(part) if one > LABELLED * longest else "" for one in spent],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            marker={
                "color": [colour(lane.name, dark) for lane in timed],
                "pattern": pattern(part, dark),
                "line": {"width": 0.5, "color": ink(dark)},
            },
            textfont={"color": "#111" if dark else "#fff", "shadow": HALO.format("#fff" if dark else "#000")},
            hovertemplate=f"%{{y}} {part_title(part)} %{{x:.3g}} ms<extra></extra>",
        )
    drawn.update_layout(barmode="stack", bargap=0.35)
    drawn.update_xaxes(rangemode="tozero")
    drawn.update_yaxes(autorange="reversed", showgrid=False)
    return Chart(title, drawn, sentences([_parts_line(lane, shape) for lane in timed], ""))


def _parts_line(lane: InspectedLane, shape: str) -> str:
    """'baseline 14.2 ms: feed-forward 48%, attention 24%, ...' and how near the sum of parts is to a free step."""
    found = lane.times[shape]
    whole = sum(found["parts"].values())
    ranked = sorted(found["parts"].items(), key=lambda item: -item[1])
    named = [f"{part_title(part)} {share(spent / whole)}" for part, spent in ranked[:NAMED]]
    rest = sum(spent for _, spent in ranked[NAMED:])
    named += [f"the rest {share(rest / whole)}"] if rest else []
    free = found["step_s"]
    apart = f"without hooks it takes {seconds(free)}" if free else ""
    return f"{title_of(lane)} {seconds(whole)}: {', '.join(named)}; {apart}."


def by_layer(lanes: list[InspectedLane], shape: str, dark: bool) -> Chart:
    """Seconds of one call by decoder layer, a line a lane."""
    timed = [lane for lane in lanes if lane.times and lane.times[shape]["layers"]]
    title = f"Time by layer: {CALLS[shape]}"
    if not timed:
        return Chart(title, None, _why_none(lanes))
    drawn = figure("decoder layer", "ms", dark)
    words = []
    for lane in timed:
        spent = lane.times[shape]["layers"]
        one = look(lane.name)
        drawn.add_scatter(
            x=list(range(len(spent))),
            y=[1000 * value for value in spent],
            mode="lines+markers",
            line={"color": one.colour(dark), "dash": one.dash, "width": 2},
            marker={"size": 5},
            hovertemplate=f"{one.title} layer %{{x}}: %{{y:.3g}} ms<extra></extra>",
        )
        drawn.add_annotation(x=len(spent) - 1, y=1000 * spent[-1], text=lane.name, showarrow=False, xshift=16)
        words.append(_layers_line(lane, spent))
    drawn.update_yaxes(rangemode="tozero")
    return Chart(title, drawn, sentences(words, ""))


def _layers_line(lane: InspectedLane, spent: list[float]) -> str:
    slowest = max(range(len(spent)), key=lambda number: spent[number])
    middle = sorted(spent)[len(spent) // 2]
    times = spent[slowest] / middle if middle else 1.0
    if times < 1.3:
        return f"{title_of(lane)}: every layer takes about {seconds(middle)}."
    found = f"layer {slowest} is the slowest with {seconds(spent[slowest])}"
    return f"{title_of(lane)}: {found}, {times:.1f} times the median."


def _why_none(lanes: list[InspectedLane]) -> str:
    reasons: dict[str, Any] = {lane.unavailable["time"]: None for lane in lanes if "time" in lane.unavailable}
    return f"Not measured: {'; '.join(reasons)}." if reasons else "No lane was timed."
