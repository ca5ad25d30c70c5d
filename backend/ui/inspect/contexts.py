"""The context on the Inspect page: which cache is safe up to how many tokens, and what a longer text costs."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.journal import Job, JournalFull
from backend.recipe.base import RecipeError
from backend.recipe.contexts import LONGEST, READY, SHORTEST, ContextSweep
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Group
from backend.swept import SweepView
from backend.ui import desk
from backend.ui.cards import error_card
from backend.ui.inspect import contextplot
from backend.ui.inspect.frame import draw_chart
from backend.ui.inspect.running import REFRESH_S, draw_cancellable
from backend.ui.text import plain
from backend.ui.words import failure

QUESTIONS = {
    "quality": "Which cache is safe for this model, and up to how many tokens?",
    "speed": "What does a longer text cost each lane?",
}
ABOUT = {
    "quality": "The baseline's model reads a text in a full cache and in each of these, and is scored at every length.",
    "speed": "Every lane of the race takes steps after texts of more and more tokens: time, attention's share, memory.",
}
BUTTONS = {"quality": "Score these caches", "speed": "Sweep the context"}
LENGTHS = [SHORTEST * 2**n for n in range(1, 6)]


def draw_contexts(inspection: Job, dark: bool) -> None:
    """Both questions, each with the newest sweep that was asked from this inspection."""
    try:
        race = Race.read(inspection.spec["race"])
    except RecipeError as error:
        error_card(error.card(), "The race is of another version")
        return
    for ask in QUESTIONS:
        _draw(inspection, race, ask, dark)


def _draw(inspection: Job, race: Race, ask: str, dark: bool) -> None:
    st.markdown(f"##### {QUESTIONS[ask]}")
    st.caption(ABOUT[ask])
    jobs = (job for job in desk.journal().jobs(kind="context") if job.spec.get("job") == inspection.id)
    job = next((job for job in jobs if job.spec.get("ask") == ask), None)
    _draw_order(inspection, race, ask, busy=job is not None and not job.ended)
    if card := st.session_state.pop(f"context_card_{ask}", None):
        error_card(card, "The sweep was not queued")
    if job is None:
        return
    if job.ended:
        _draw_ended(job, ask, dark)
    else:
        _follow(job.id, ask, dark)


@st.fragment
def _draw_order(inspection: Job, race: Race, ask: str, busy: bool) -> None:
    key = f"context-{inspection.id}-{ask}"
    length, more, button = st.columns([2, 5, 2], vertical_alignment="bottom")
    longest = length.selectbox("Longest text, tokens", LENGTHS, index=LENGTHS.index(LONGEST), key=f"{key}-longest")
    asked: dict[str, Any] = {"ask": ask, "longest": longest}
    if ask == "quality":
        known = offered(race)
        chosen = more.multiselect("Caches", list(known), default=list(known)[:4], max_selections=6, key=f"{key}-caches")
        asked["caches"] = [known[name].model_dump(mode="json") for name in chosen]
    if button.button(BUTTONS[ask], key=f"{key}-start", disabled=busy, width="stretch"):
        _start(inspection, race, asked)
        st.rerun(scope="app")


def offered(race: Race) -> dict[str, Recipe]:
    """Caches to choose from: those of the race's variants first, then the ready ones."""
    own = (
        Recipe(switches={switch.kind: switch})
        for recipe in race.variants
        for switch in recipe.pipeline
        if switch.group == Group.CACHE
    )
    return {recipe.label: recipe for recipe in own} | READY


def _start(inspection: Job, race: Race, asked: dict[str, Any]) -> None:
    """Queue it."""
    try:
        order = ContextSweep.read({"race": race.model_dump(mode="json"), "job": inspection.id, **asked})
        desk.journal().submit("context", order.model_dump(mode="json"), desk.owner())
    except RecipeError as error:
        st.session_state[f"context_card_{asked['ask']}"] = error.card()
    except JournalFull as error:
        st.session_state[f"context_card_{asked['ask']}"] = desk.full_card(error)


@st.fragment(run_every=REFRESH_S)
def _follow(number: int, ask: str, dark: bool) -> None:
    """Progress and the curves so far, once a second; when it has ended the whole page is drawn anew."""
    job = desk.journal().job(number)
    if job is None or job.ended:
        st.rerun(scope="app")
    view = _view_of(job, ask)
    draw_cancellable(job, view.phase, f"cancel-context-{ask}")
    _draw_curves(view, ContextSweep.read(job.spec), dark)


def _view_of(job: Job, ask: str) -> SweepView:
    """The folded events, kept between drawings."""
    return desk.view_of(job, f"sweep-{ask}", SweepView)


def _draw_ended(job: Job, ask: str, dark: bool) -> None:
    """The whole curves, or what there is of them."""
    view = _view_of(job, ask)
    if view.card:
        error_card(view.card, "The sweep did not end well")
    try:
        asked = ContextSweep.read(job.spec)
    except RecipeError as error:
        error_card(error.card(), "It was asked by another version")
        return
    if job.state == "cancelled":
        st.caption("Cancelled. What was found until then stands below.")
    for lane in view.lanes.values():
        if lane.failure and "card" in lane.failure:
            error_card(lane.failure["card"])
        elif lane.failure:
            st.error(plain(failure(lane.failure)))
    _draw_curves(view, asked, dark)


def _draw_curves(view: SweepView, asked: ContextSweep, dark: bool) -> None:
    lanes = list(view.lanes.values())
    if asked.ask == "speed":
        for number, chart in enumerate(contextplot.speed(lanes, dark)):
            draw_chart(chart, f"context-speed-{number}")
    for lane in lanes if asked.ask == "quality" else ():
        draw_chart(contextplot.quality(lane, asked, dark), "context-quality")
        draw_chart(contextplot.loss(lane, asked, dark), "context-loss")
        draw_chart(contextplot.held(lane, asked, dark), "context-held")
