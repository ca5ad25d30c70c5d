"""Save model: a lane of a finished race as a model of its own, saved by the worker under a name."""

from __future__ import annotations

import re

import streamlit as st

from backend.journal import Job, JournalFull
from backend.recipe.base import RecipeError
from backend.replay import RaceView
from backend.saved import WEIGHTS, models_folder, read_saved
from backend.savedsizes import size_lines
from backend.savejob import SaveOrder
from backend.ui import desk, words
from backend.ui.cards import error_card
from backend.ui.live.feed import Feed
from backend.ui.models import facts_of
from backend.ui.text import plain

LOOK_S = 0.5
HELP = "Saves a lane's changed model, to be raced and loaded without the original"


def draw_save(feed: Feed, key: str) -> None:
    """The button with lane and name behind it."""
    lanes = dict(feed.race.lanes)
    with st.popover("Save model", width="stretch", help=HELP):
        names = list(lanes)
        lane = st.selectbox(
            "Lane",
            names,
            index=min(1, len(names) - 1),
            format_func=lambda name: f"{name}: {lanes[name].label}",
            key=f"{key}-model-lane",
        )
        usual = _usual_name(feed.race.model, lanes[lane].label)
        field = f"{key}-model-name-{lane}"
        st.text_input("Name", value=usual, key=field, max_chars=80, help="It will stand in the model menu by this name")
        st.button("Save it", key=f"{key}-model-save", on_click=_order, args=(feed, lane, field))


def draw_saving(feed: Feed, key: str) -> None:
    """How far the saving of this race's model is, where it lies, or why it failed."""
    if card := st.session_state.pop("model_card", None):
        error_card(card, "The model was not saved")
    job = next((job for job in desk.journal().jobs(kind="save") if job.spec.get("job") == feed.job.id), None)
    if job is None:
        return
    if not job.ended:
        _follow(job.id, key)
    elif job.state == "finished":
        _draw_done(job)
    elif job.state == "failed" and (card := RaceView().apply_all(desk.journal().events(job.id)).card):
        error_card(card, "The model was not saved")


def _usual_name(model: str, label: str) -> str:
    """A name to begin with: 'storyteller-int8-weights'."""
    last = model.rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{last} {label}").strip("-")[:60]


def _order(feed: Feed, lane: str, field: str) -> None:
    order = SaveOrder(race=feed.race, lane=lane, name=str(st.session_state[field]).strip()[:200], job=feed.job.id)
    try:
        order.check()
        desk.journal().submit("save", order.model_dump(mode="json"), desk.owner())
    except RecipeError as error:
        st.session_state["model_card"] = error.card()
    except JournalFull as error:
        st.session_state["model_card"] = desk.full_card(error)


def _cancel(number: int) -> None:
    try:
        desk.journal().cancel(number)
    except JournalFull as error:
        st.session_state["model_card"] = desk.full_card(error)


@st.fragment(run_every=LOOK_S)
def _follow(number: int, key: str) -> None:
    """The progress; the page is drawn anew at its end, when the menu has one model more."""
    job = desk.journal().job(number)
    if job is None or job.ended:
        facts_of.clear()
        st.rerun()
    event = desk.journal().last(number, "phase")
    phase = event.data if event else {}
    wait = "Waiting for its turn." if desk.journal().workers() else words.NO_WORKER
    parts = ["cancelling"] if job.cancel else [str(phase.get("text") or wait), words.left(phase.get("eta_s"))]
    said = ", ".join(part for part in parts if part)
    bar, button = st.columns([5, 1], vertical_alignment="center")
    bar.progress(min(1.0, phase.get("done") or 0.0), plain(f"Saving {job.spec.get('name', '')}: {said}"))
    button.button(
        "Cancel", on_click=_cancel, args=(number,), disabled=job.cancel, key=f"{key}-model-cancel", width="stretch"
    )


def _draw_done(job: Job) -> None:
    """What was saved and how large it is, as the folder itself says."""
    folder = models_folder() / str(job.spec.get("name"))
    try:
        saved = read_saved(folder)
        lines = size_lines(saved, (folder / WEIGHTS).stat().st_size) if saved else []
    except (RecipeError, OSError):
        lines = []
    if lines:
        st.success(plain(f"Saved. It stands in the model menu as {folder.name}: {'; '.join(lines)}."))
