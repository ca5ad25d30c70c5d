"""A plot as still HTML, for what is drawn anew every second.

Streamlit builds a plotly chart from scratch whenever its data changes, which blinks and takes time that the lanes need.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from backend.ui.inspect.plot import Chart, ink
from backend.ui.text import plain

LEFT, RIGHT, TOP, BOTTOM = 56, 60, 8, 34  # pixels around what is drawn
GRID = "rgba(140,150,165,0.28)"
THICK = 0.85  # of a slot's row
WIDE, HIGH = 0.5, 1.2  # percent of the area: how thick a line is


def draw_sketch(chart: Chart, key: str, dark: bool) -> None:
    """The plot in the frame that it has at the end, so that nothing moves then."""
    with st.container(border=True, key=f"inspect-plot-{key}"):
        st.markdown(f"**{plain(chart.title)}**")
        if chart.figure is not None:
            st.html(sketch(chart.figure, dark))
        st.caption(plain(chart.summary))


def sketch(figure: go.Figure, dark: bool) -> str:
    """Horizontal bars, or lines, with their axes; for screen readers the words below it say the same."""
    place = Place(figure)
    made = [*_ticks(figure, place), *_titles(figure), *_bars(figure, place, dark), *_lines(figure, place)]
    area = f"position:absolute;left:{LEFT}px;right:{RIGHT}px;top:{TOP}px;bottom:{BOTTOM}px"
    outer = f"position:relative;height:{figure.layout.height}px;font-size:11px;line-height:1;color:{ink(dark)}"
    return f'<div aria-hidden="true" style="{outer}"><div style="{area}">{"".join(made)}</div></div>'


class Place:
    """From values to percent of the area, from its left and from its bottom."""

    def __init__(self, figure: go.Figure) -> None:
        self.end = float(figure.layout.xaxis.range[1])
        highest = max((max(trace.y, default=0) for trace in figure.data if trace.type == "scatter"), default=0)
        low, high = figure.layout.yaxis.range or (0.0, 1.05 * highest or 1.0)
        self.low, self.high = float(low), float(high)

    def x(self, value: float) -> float:
        """Percent from the left."""
        return 100 * value / self.end

    def y(self, value: float) -> float:
        """Percent from the bottom."""
        return 100 * (value - self.low) / (self.high - self.low)


def _span(style: str, text: str = "", kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<span{name} style="position:absolute;white-space:nowrap;{style}">{html.escape(text)}</span>'


def _steps(end: float, most: int) -> list[float]:
    """Round numbers from 0 to `end`, `most` of them or fewer."""
    rough = end / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    return [step * n for n in range(int(end / step + 1e-9) + 1)]


def _ticks(figure: go.Figure, place: Place) -> Iterator[str]:
    for value in _steps(place.end, 6):
        left = f"left:{place.x(value):.2f}%"
        yield _span(f"{left};top:0;bottom:0;border-left:1px solid {GRID}")
        yield _span(f"{left};top:calc(100% + 4px);transform:translateX(-50%)", _tick(value))
    rows = figure.layout.yaxis.showgrid is False  # slots: a name for each where they are few
    dense = rows and not figure.layout.yaxis.dtick
    values = [float(n) for n in range(1, int(place.low) + 1)] if rows else _steps(place.high, 4)
    for value in values[::8] if dense else values:
        bottom = f"bottom:{place.y(value):.2f}%"
        if not rows:
            yield _span(f"{bottom};left:0;right:0;border-top:1px solid {GRID}")
        yield _span(f"{bottom};right:calc(100% + 4px);transform:translateY(50%)", _tick(value))


def _tick(value: float) -> str:
    """As plotly writes it: 300k, 0.0005."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (limit if unit != 'k' else 1e3):g}{unit}"
    return f"{value:,g}"


def _titles(figure: go.Figure) -> Iterator[str]:
    yield _span("left:50%;top:calc(100% + 20px);transform:translateX(-50%)", figure.layout.xaxis.title.text)
    turned = f"left:-{LEFT - 8}px;top:50%;transform:translate(-50%,-50%) rotate(-90deg)"
    yield _span(turned, figure.layout.yaxis.title.text)


def _bars(figure: go.Figure, place: Place, dark: bool) -> Iterator[str]:
    edge = "#111" if dark else "#fff"
    for trace in figure.data:
        if trace.type != "bar":
            continue
        fill = trace.marker.color
        if trace.marker.pattern.shape:
            fill = f"repeating-linear-gradient(135deg,{fill} 0 4px,{edge} 4px 6px)"
        for row, since, length in zip(trace.y, trace.base, trace.x, strict=True):
            bottom, top = place.y(row + THICK / 2), place.y(row - THICK / 2)
            where = f"left:{place.x(since):.2f}%;width:{place.x(length):.2f}%;bottom:{bottom:.2f}%"
            look = f"height:{top - bottom:.2f}%;background:{fill};box-shadow:inset -1px 0 {edge}"
            yield _span(f"{where};{look}", kind="stay")


def _lines(figure: go.Figure, place: Place) -> Iterator[str]:
    for trace in figure.data:
        if trace.type == "scatter" and len(trace.x):
            yield _span(_line(trace, place, HIGH), kind="line")
            if trace.line.shape != "hv":  # what falls is as thick as what rises
                yield _span(_line(trace, place, -HIGH), kind="line")
    for one in figure.layout.annotations:
        where = f"left:{place.x(one.x):.2f}%;bottom:{place.y(one.y):.2f}%;transform:translate(4px,50%)"
        yield _span(f"{where};color:{one.font.color}", one.text)


def _line(trace: Any, place: Place, high: float) -> str:
    """A line as an area cut out of its colour, there and back beside itself: Streamlit lets no SVG through."""
    steps: list[tuple[float, float]] = []
    stairs = trace.line.shape == "hv"  # asked once: plotly takes its time to answer
    for x, y in zip(trace.x, trace.y, strict=True):
        across, down = place.x(x), 100 - place.y(y)
        steps += [(across, steps[-1][1])] if steps and stairs else []
        steps.append((across, down))
    edge = steps + [(across + WIDE, down + high) for across, down in reversed(steps)]
    shape = ",".join(f"{across:.2f}% {down:.2f}%" for across, down in edge)
    return f"inset:-1px;background:{trace.line.color};clip-path:polygon({shape})"
