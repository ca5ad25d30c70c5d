"""What the plots of the Inspect page share: an empty figure, colours of lanes, words for parts."""

from __future__ import annotations

import html
from typing import Any, NamedTuple

import plotly.graph_objects as go

from backend.inspection import InspectedLane
from backend.ui.palette import look

HEIGHT = 240
PARTS = {  # in the order in which they are stacked, with the pattern that tells them apart beside the colour
    "feed_forward": ("feed-forward", ""),
    "attention": ("attention", "/"),
    "head": ("head", "x"),
    "embed": ("embedding", "."),
    "norm": ("norms", "-"),
    "cache": ("cache", "|"),
    "sampling": ("sampling", "+"),
    "compiled": ("compiled", "\\"),
    "python": ("Python", "."),
}


class Chart(NamedTuple):
    """A plot and what it says: a title that asks or names, the figure (None: nothing to say), a summary in words."""

    title: str
    figure: go.Figure | None
    summary: str


def figure(x: str, y: str, dark: bool, height: int = HEIGHT) -> go.Figure:
    """An empty figure with named axes."""
    grid = "rgba(140,150,165,0.28)"
    axis: dict[str, Any] = {"gridcolor": grid, "zerolinecolor": grid, "automargin": True, "fixedrange": True}
    return go.Figure(
        layout={
            "height": height,
            "margin": {"l": 8, "r": 36, "t": 8, "b": 8},
            "showlegend": False,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": ink(dark), "size": 11},
            "xaxis": axis | {"title": {"text": x, "standoff": 4}},
            "yaxis": axis | {"title": {"text": y, "standoff": 4}},
        }
    )


def ink(dark: bool) -> str:
    """The colour of text."""
    return "#E6E9EE" if dark else "#1B1F27"


def colour(lane: str, dark: bool) -> str:
    """The lane's colour."""
    return look(lane).colour(dark)


def pattern(part: str, dark: bool) -> dict[str, Any]:
    """The pattern of a part inside its lane's colour."""
    return {"shape": PARTS.get(part, (part, ""))[1], "fgcolor": "#111" if dark else "#fff", "solidity": 0.3}


def part_title(part: str) -> str:
    """A part in words."""
    return PARTS.get(part, (part.replace("_", "-"), ""))[0]


def ordered(parts: dict[str, Any]) -> list[str]:
    """The parts in the order in which they are stacked; unknown ones last."""
    return [*(part for part in PARTS if part in parts), *(part for part in parts if part not in PARTS)]


def title_of(lane: InspectedLane) -> str:
    """The lane's name in words."""
    return look(lane.name).title


def as_text(text: str) -> str:
    """Text of other people's making for plotly, which reads some tags."""
    return html.escape(text, quote=False)


def sentences(words: list[str], otherwise: str) -> str:
    """The words as one paragraph, each begun with a capital letter."""
    return " ".join(f"{one[:1].upper()}{one[1:]}" for one in words if one) or otherwise
