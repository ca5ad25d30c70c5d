"""Cards: a mistake with its four parts, a notice, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import streamlit as st

from backend.encodingview import EncodingLane, EncodingView
from backend.recipe.base import Config, RecipeError
from backend.replay import LaneView, RaceView
from backend.serving.view import ServedView, ServingView
from backend.ui import words
from backend.ui.judged import draw_alarm, draw_budget
from backend.ui.measured import draw_suspicions
from backend.ui.no_effect import alarms
from backend.ui.palette import look
from backend.ui.text import plain, short

C = TypeVar("C", bound=Config)


def error_card(card: dict[str, str], title: str = "This cannot be raced as it stands") -> None:
    """What was given, what is allowed, and what to do."""
    value = plain(short(str(card["value"]), 200))
    st.error(
        f"**{plain(title)}**\n\n"
        f"Field: **{plain(card['field'])}**  \nGiven: {value or 'nothing'}  \n"
        f"Allowed: {plain(card['allowed'])}  \nWhat to do: {plain(card['remedy'])}"
    )


def order_or_card(spec: dict[str, Any], cls: type[C]) -> C | None:
    """What a job asked for; None, and a card, where another version wrote it."""
    try:
        return cls.read(spec)
    except RecipeError as error:
        error_card(error.card(), "This was asked for in another version")
        return None


def failure_cards(view: RaceView | EncodingView | ServingView) -> None:
    """One card for every lane that failed."""
    lanes: list[LaneView | EncodingLane | ServedView] = list(view.lanes.values())
    for lane in lanes:
        if lane.failure is None:
            continue
        title = f"{look(lane.name).title.capitalize()} failed. What the other lanes measured stays."
        if "card" in lane.failure:
            error_card(lane.failure["card"], title)
        else:
            st.error(f"**{plain(title)}**\n\n{plain(words.failure(lane.failure))}")


def verdict_card(view: RaceView, ended: str, variants: int, key: str) -> None:
    """How the race ended and what it showed, in the place where its progress stood; alarms and doubts stand with it."""
    with st.container(border=True, key=f"{key}-verdict-of-{variants}"):
        st.caption(plain(ended))
        if view.verdict is None:
            return
        for line in alarms(view.verdict):
            st.error(f"**{plain(line)}**")
        for name, lane, (first, *_) in _told(view.verdict):
            draw_budget(name, lane)
            st.markdown(f"##### {plain(first)}")
            draw_alarm(lane)
        draw_suspicions(view.verdict)


def verdict_details(view: RaceView, price_per_hour: float) -> None:
    """What else there is to say about every variant, below the plots."""
    if view.verdict is None:
        return
    base = view.verdict["lanes"].get("base", {})
    with st.container(border=True, key="verdict"):
        for name, lane, (_, *rest) in _told(view.verdict):
            label = view.lanes[name].label if name in view.lanes else ""
            st.markdown(f"**{plain(name)}** {plain(label)}")
            lines = [*rest, words.cost_line(lane, base, price_per_hour)]
            st.markdown("  \n".join(plain(line) for line in lines if line))
        for note in view.verdict.get("notes", ()):
            st.caption(plain(note))


def _told(verdict: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Every variant's name, its verdict, and its sentences, the headline first."""
    base = verdict["lanes"].get("base", {})
    for name, lane in verdict["lanes"].items():
        if name != "base":
            yield name, lane, words.sentences(name, lane, base)
