"""Cards: a mistake with its four parts, a notice, and the verdict."""

from __future__ import annotations

import streamlit as st

from backend.replay import RaceView
from backend.ui import words
from backend.ui.palette import look
from backend.ui.text import plain, short


def error_card(card: dict[str, str], title: str = "This cannot be raced as it stands") -> None:
    """What was given, what is allowed, and what to do."""
    value = plain(short(str(card["value"]), 200))
    st.error(
        f"**{plain(title)}**\n\n"
        f"Field: **{plain(card['field'])}**  \nGiven: {value or 'nothing'}  \n"
        f"Allowed: {plain(card['allowed'])}  \nWhat to do: {plain(card['remedy'])}"
    )


def failure_cards(view: RaceView) -> None:
    """One card for every lane that failed."""
    for lane in view.lanes.values():
        if lane.failure is None:
            continue
        title = f"{look(lane.name).title.capitalize()} failed. What the other lanes measured stays."
        if "card" in lane.failure:
            error_card(lane.failure["card"], title)
        else:
            st.error(f"**{plain(title)}**\n\n{plain(words.failure(lane.failure))}")


def verdict_card(view: RaceView, price_per_hour: float) -> None:
    """What the race showed, one variant after the other."""
    verdict = view.verdict
    if verdict is None:
        return
    base = verdict["lanes"].get("base", {})
    with st.container(border=True, key="verdict"):
        for name, lane in verdict["lanes"].items():
            if name == "base":
                continue
            first, *rest = words.sentences(name, lane, base)
            st.markdown(f"##### {plain(first)}")
            lines = [*rest, words.cost_line(lane, base, price_per_hour)]
            st.markdown("  \n".join(plain(line) for line in lines if line))
        for note in verdict.get("notes", ()):
            st.caption(plain(note))
