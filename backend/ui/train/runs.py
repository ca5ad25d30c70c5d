"""Trainings of this journal beside each other: a table, one plot for those that are picked, and the way back to one."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.trained import STUDENT, TrainedLane, TrainingView
from backend.ui import desk
from backend.ui.figures import count, share, three
from backend.ui.inspect.frame import draw_chart
from backend.ui.text import plain, short
from backend.ui.train import curves, form, names
from backend.ui.train.address import ADDRESS

SHOWN = 50  # in the table
READ = ("begun", "looked")  # kinds of events that a curve needs


def draw_runs() -> None:
    """The table, and what is picked in it."""
    jobs = desk.journal().jobs(kind="train", limit=SHOWN)
    if not jobs:
        return
    st.markdown("##### Trainings")
    st.caption("Pick one to open it, or several to compare their recovery.")
    table = [_row(job, lane_of(job)) for job in jobs]
    key = f"trainings-{jobs[0].id}"  # rows move when there is one more
    picked = st.dataframe(
        table, on_select="rerun", selection_mode="multi-row", hide_index=True, key=key, width="stretch"
    )["selection"]["rows"]
    chosen = [jobs[at] for at in picked if at < len(jobs)]
    if not chosen:
        return
    if len(chosen) == 1:
        label = f"Open training {chosen[0].id}"
        st.button(label, key="train-open", on_click=_open, args=(chosen[0],))
    runs = {f"{job.id}": lane_of(job) for job in chosen}
    draw_chart(curves.compared(runs, st.context.theme.type == "dark"), "trainings")
    for job in chosen:
        st.caption(plain(f"{job.id}: {job.spec.get('name', '')}, {_label(job)}"))


def lane_of(job: Job) -> TrainedLane:
    """What its looks saw, with none of its steps; kept for the session once it has ended."""
    kept: dict[tuple[int, float | None], TrainedLane] = st.session_state.setdefault("train-looks", {})
    key = (job.id, job.finished)
    if key in kept:
        return kept[key]
    view = TrainingView()
    lane = view.apply_all(desk.journal().events_of(job.id, READ)).lane(STUDENT)
    if job.ended:
        kept[key] = lane
    return lane


def _row(job: Job, lane: TrainedLane) -> dict[str, Any]:
    last = lane.looks[-1] if lane.looks else {}
    tokens = last["step"] * lane.begun["step_tokens"] if last and lane.begun else 0
    return {
        "training": job.id,
        "state": job.state,
        "name": short(str(job.spec.get("name", "")), 40),
        "what": short(_label(job), 70),
        "model": short(str(job.spec.get("model", "")), 40),
        "tokens": count(tokens) if tokens else "",
        "KLD, nats": three(last["kld"]) if "kld" in last else "",
        "loss, nats": three(last["loss"]) if "loss" in last else "",
        "recovered": share(lane.recovered) if lane.recovered is not None else "",
    }


def _label(job: Job) -> str:
    try:
        return Training.read(job.spec).label
    except RecipeError:
        return "a recipe of another version"


def _open(job: Job) -> None:
    """Follow it, with its recipe in the form under the next name that is free."""
    try:
        form.show(names.free(Training.read(job.spec, where="training")))
    except RecipeError as error:
        ADDRESS.complain(error.card())
    ADDRESS.open(job.id)
