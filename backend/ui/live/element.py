"""The one element that draws a race: panes always, the four plots while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from backend.journal import Journal
from backend.recipe.race import Race
from backend.replay import LaneView
from backend.ui.live.feed import Feed, lane_data
from backend.ui.palette import look

_FOLDER = Path(__file__).parent


def _read(*names: str) -> str:
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)


_element = st.components.v2.component(
    "headway_race", html=_read("live.html"), css=_read("live.css"), js=_read("panes.js", "plots.js")
)
REFRESH_S = 0.2  # while tokens come
REST_S = 1.0  # while requests are measured: a refresh takes a core for tens of milliseconds, whatever it shows
LOST = "live_lost"
MEASURED = ("scoring", "measuring")


def follow_race(journal: Journal, feed: Feed) -> None:
    """Draw the running race and go on drawing it; the page is drawn anew when the race has ended."""
    feed.update(journal)
    measured = feed.view.phase.get("name") in MEASURED
    st.session_state[LOST] = True  # an element that was just drawn has nothing yet
    st.fragment(_draw, run_every=REST_S if measured else REFRESH_S)(journal, feed, measured)


def _draw(journal: Journal, feed: Feed, measured: bool) -> None:
    payload = feed.update(journal)
    if feed.job.ended or measured != (feed.view.phase.get("name") in MEASURED):
        st.rerun()
    if st.session_state.pop(LOST, False):
        payload = feed.whole()
    _element(key=f"live-{feed.job.id}", data=payload, on_lost_change=_lose)


def _lose() -> None:
    """The browser skipped more than was repeated: tell it everything once."""
    st.session_state[LOST] = True


def draw_panes(feed: Feed, key: str) -> None:
    """Draw the panes of a race that has ended, without the plots."""
    payload: dict[str, Any] = feed.whole() | {"mode": "ended", "key": f"{key}-{feed.job.id}"}
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
