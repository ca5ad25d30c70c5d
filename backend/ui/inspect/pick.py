"""Choosing what is inspected: a race that has ended, and its inspection, both kept in the address."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.inspection import InspectionView
from backend.journal import ENDED, Job, JournalFull
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.ui import desk
from backend.ui.text import plain, short

SHOWN = 100  # races in the menu
ADDRESS = "inspect"  # the parameter: the number of a race or of an inspection


def asked() -> Job | None:
    """The job that the address names, a race or an inspection; None for anything else."""
    number = st.query_params.get(ADDRESS, "")
    if not number.isascii() or not number.isdigit() or len(number) > 15:
        return None
    job = desk.journal().job(int(number))
    return job if job is not None and job.kind in ("race", "inspect") else None


def races(wanted: int | None) -> dict[int, Job]:
    """Races that have ended, the newest first, and the one that is wanted wherever it stands."""
    found = {job.id: job for job in desk.journal().jobs(kind="race", states=ENDED, limit=SHOWN)}
    if wanted is not None and wanted not in found and (job := desk.journal().job(wanted)) and job.kind == "race":
        found[wanted] = job
    return found


def race_of(job: Job) -> int | None:
    """The race that a job of the address is about."""
    return job.id if job.kind == "race" else job.spec.get("job")


def inspections(race: int) -> list[Job]:
    """The inspections of a race, the newest first."""
    return [job for job in desk.journal().jobs(kind="inspect") if job.spec.get("job") == race]


def draw_pick(found: dict[int, Job], wanted: int | None) -> Job:
    """The menu of races; choosing one puts it into the address."""
    numbers = list(found)
    index = numbers.index(wanted) if wanted in found else 0
    chosen = st.selectbox(
        "Race",
        numbers,
        index=index,
        format_func=lambda number: _title(found[number]),
        key=f"inspect-race-{wanted}",
        on_change=_choose,
        args=(f"inspect-race-{wanted}",),
    )
    return found[chosen]


def _choose(key: str) -> None:
    st.query_params[ADDRESS] = str(st.session_state[key])


def _title(job: Job) -> str:
    """'Race 12: storyteller, A int8 weights'."""
    try:
        race = Race.read(job.spec)
    except RecipeError:
        return f"Race {job.id}: a recipe of another version"
    lanes = ", ".join(f"{name} {recipe.label}" for name, recipe in race.lanes if name != "base")
    return short(f"Race {job.id}: {race.model}, {lanes}", 110)


def start(race: Job) -> None:
    """Queue an inspection of the race and follow it."""
    spec: dict[str, Any] = {"race": race.spec, "job": race.id}
    try:
        job = desk.journal().submit("inspect", spec, desk.owner())
    except JournalFull as error:
        st.session_state["inspect_card"] = desk.full_card(error)
        return
    st.query_params[ADDRESS] = str(job)


def view_of(job: Job) -> InspectionView:
    """The inspection's folded events, kept between drawings."""
    return desk.view_of(job, "inspection", InspectionView)


def draw_button(race: Job, key: str) -> None:
    """The way from a race's result to its inspection."""
    if st.button("Inspect", key=key, width="stretch", help="Where do time and memory go?"):
        st.switch_page("pages/inspect.py", query_params={ADDRESS: str(race.id)})


def prompt_line(race: Job) -> str:
    """What was asked of the race, in one line."""
    return plain(f"Prompt: {short(str(race.spec.get('prompt', '')), 160)}")
