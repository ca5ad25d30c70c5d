"""The two plots of an encoder's race: sentences a second by size of the call, and the ratios with their intervals."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from backend.ui.figures import interval, ratio, three
from backend.ui.inspect.plot import Chart, colour, figure
from backend.ui.palette import look

PATTERNS = {"base": "", "A": "/", "B": ".", "C": "x"}  # beside the colour, never the colour alone


def charts(verdict: dict[str, Any], dark: bool) -> list[Chart]:
    """Both plots; a figure is None where nothing was measured."""
    return [speeds(verdict, dark), ratios(verdict, dark)]


def speeds(verdict: dict[str, Any], dark: bool) -> Chart:
    """Bars from zero, one group a size."""
    drawn = figure("sentences a call", "sentences/s", dark)
    words = []
    for name, lane in verdict["lanes"].items():
        found = {at: one["sentences_per_s"] for at, one in lane["sizes"].items() if "sentences_per_s" in one}
        if not found:
            continue
        drawn.add_bar(
            x=list(found),
            y=list(found.values()),
            name=_title(name, lane),
            marker={"color": colour(name, dark), "pattern": {"shape": PATTERNS.get(name, "")}},
            text=[name] * len(found),
            hovertemplate="%{y:.3g} sentences/s<extra>%{fullData.name}</extra>",
        )
        words.append(f"{_title(name, lane)} {', '.join(three(value) for value in found.values())}")
    drawn.update_layout(barmode="group")
    drawn.update_xaxes(type="category")
    drawn.update_yaxes(rangemode="tozero")
    return Chart("Sentences a second", drawn if words else None, f"{'; '.join(words)}." if words else "Not measured.")


def ratios(verdict: dict[str, Any], dark: bool) -> Chart:
    """A dot with its interval for every variant and size, beside the line at 1."""
    drawn, words = figure("times the baseline's sentences/s", "", dark), []
    for name, lane in verdict["lanes"].items():
        found = {at: one["speed"] for at, one in lane["sizes"].items() if "low" in one.get("speed", {})}
        if found:
            _dots(drawn, name, found, dark)
            told = (f"{at}: {ratio(one['ratio'])} {interval(one['low'], one['high'])}" for at, one in found.items())
            words.append(f"{_title(name, lane)} {', '.join(told)}")
    drawn.add_vline(x=1, line={"color": colour("base", dark), "dash": look("base").dash, "width": 1})
    drawn.update_yaxes(autorange="reversed", showgrid=False)
    return Chart("Against the baseline", drawn if words else None, f"{'; '.join(words)}." if words else "Not measured.")


def _dots(drawn: go.Figure, name: str, found: dict[str, dict[str, Any]], dark: bool) -> None:
    centres = [one["ratio"] for one in found.values()]
    drawn.add_scatter(
        x=centres,
        y=[f"{name}, {at}" for at in found],
        mode="markers",
        marker={"color": colour(name, dark), "size": 8},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [one["high"] - one["ratio"] for one in found.values()],
            "arrayminus": [one["ratio"] - one["low"] for one in found.values()],
            "color": colour(name, dark),
        },
        hovertemplate="%{x:.3g}x<extra></extra>",
    )


def _title(name: str, lane: dict[str, Any]) -> str:
    return look(name).title + (" (simulated)" if lane.get("simulated") else "")
