"""The one element that draws a race: panes always, the four plots while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from backend.recipe.race import Race
from backend.replay import LaneView
from backend.ui.live.feed import Feed, lane_data
from backend.ui.live.wire import ADDRESS
from backend.ui.palette import look

_FOLDER = Path(__file__).parent


def _read(*names: str) -> str:
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)


_element = st.components.v2.component(
    "headway_race", html=_read("live.html"), css=_read("live.css"), js=_read("panes.js", "plots.js", "routes.js")
)


def follow_race(feed: Feed) -> None:
    """Draw the running race; the element goes on by itself over the wire, and draws the page anew at the end."""
    payload = feed.tell() | {"wire": f"{ADDRESS}/{feed.job.id}"}
    _element(key=f"live-{feed.job.id}", data=payload, on_ended_change=lambda: None)


def draw_panes(feed: Feed, key: str) -> None:
    """Draw the panes of a race that has ended, without the plots."""
    payload: dict[str, Any] = feed.tell() | {"mode": "ended", "key": f"{key}-{feed.job.id}"}
    _element(key=f"panes-{key}-{feed.job.id}", data=payload)


def draw_empty(race: Race | None) -> None:
    """The places that a race will fill, with the lanes as the form names them."""
    named = [(name, recipe.label) for name, recipe in race.lanes] if race else [("base", ""), ("A", "")]
    lanes = [lane_data(LaneView(name)) | {"title": look(name).title, "label": label} for name, label in named]
    text = "Press Race: both models write the same text, and what the change did is plotted as it happens."
    payload = {
        "key": f"empty {named}",
        "seq": 1,
        "state": "empty",
        "total": 128,
        "scored": True,
        "progress": {"name": "empty", "text": text, "share": 0.0},
        "lanes": lanes,
    }
    _element(key="live-empty", data=payload)
