"""The Inspect page, from the choice of a race to what was found in it."""

from __future__ import annotations

import streamlit as st

from backend.journal import Job
from backend.ui.cards import error_card
from backend.ui.inspect import pick
from backend.ui.inspect.running import draw_running
from backend.ui.text import plain

NOTHING = (
    "Nothing was looked into yet. Inspect loads each lane of this race again, one after the other, and shows which "
    "part and layer takes the time, what bounds it, when memory peaks, what the heads look at, and which layers bear "
    "quantization badly. It takes about a minute for the storyteller and several for a larger model."
)


def draw_empty() -> None:
    """No race has ended yet."""
    st.info("No race has ended yet. Press Race on the Bench; then look into what it ran here.")
    st.page_link("pages/bench.py", label="To the Bench")


def draw_page() -> None:
    """The menu, the button, and the inspection as it stands."""
    named = pick.asked()
    wanted = pick.race_of(named) if named else None
    found = pick.races(wanted)
    if named is not None and named.kind == "inspect" and wanted not in found:
        _draw_inspection(named)  # its race was never in this journal: what was found in it still is
        return
    if not found:
        draw_empty()
        return
    menu, button = st.columns([6, 1.4], vertical_alignment="bottom")
    with menu:
        race = pick.draw_pick(found, wanted)
    job = _job_of(race, named)
    busy = job is not None and not job.ended
    button.button(
        "Inspect", type="primary", on_click=pick.start, args=(race,), disabled=busy, width="stretch", key="inspect"
    )
    st.caption(pick.prompt_line(race))
    if card := st.session_state.pop("inspect_card", None):
        error_card(card, "The inspection was not queued")
    if job is None:
        st.info(plain(NOTHING))
        return
    if st.query_params.get(pick.ADDRESS) != str(job.id):
        st.query_params[pick.ADDRESS] = str(job.id)
    _draw_inspection(job)


def _job_of(race: Job, named: Job | None) -> Job | None:
    """The inspection that the address names, or the newest one of the race."""
    if named is not None and named.kind == "inspect" and named.spec.get("job") == race.id:
        return named
    return next(iter(pick.inspections(race.id)), None)


def _draw_inspection(job: Job) -> None:
    if not job.ended:
        draw_running(job)
        return
    from backend.ui.inspect.results import draw_results  # plotly takes a third of a second

    draw_results(pick.view_of(job), job)
