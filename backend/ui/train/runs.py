"""Trainings of this journal beside each other: a table, one plot for those that are picked, and the way back to one."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import KVHeads
from backend.recipe.training import Training
from backend.trained import TrainedLane, TrainingView
from backend.ui import desk
from backend.ui.figures import count, share, three
from backend.ui.form.options import fitting
from backend.ui.inspect.frame import draw_chart
from backend.ui.models import facts_of
from backend.ui.text import plain, short
from backend.ui.train import curves, form, names
from backend.ui.train.address import ADDRESS

SHOWN = 50  # in the table
STUDENT = "student"
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


def sweep_of(asked: Training) -> list[Training]:
    """One training for every number of KV heads that the model's divide into, most first; none without such a student.

    >>> [one.name for one in sweep_of(Training.read({"name": "a"}))]
    []
    """
    held = asked.student.switches.get(KVHeads.kind)
    facts, _ = facts_of(asked.smaller or asked.model, asked.revision, asked.trust_remote_code)
    if held is None or facts is None:
        return []
    found = []
    for heads in reversed(fitting(KVHeads, "count", facts) or ()):
        data = asked.model_dump(mode="json")
        data["student"]["switches"][KVHeads.kind]["count"] = heads
        found.append(names.free(Training.read(data | {"name": f"{asked.name[:70]}-kv{heads}"})))
    return found


def draw_sweep(asked: Training | None) -> None:
    """The button that queues them all."""
    found = sweep_of(asked) if asked else []
    if len(found) < 2:
        return
    heads = ", ".join(str(getattr(one.student.switches[KVHeads.kind], "count", "")) for one in found)
    note = "They run one after the other. Pick them in the table below to see their recovery in one plot."
    st.button(f"Train one for each of {heads} KV heads", key="train-sweep", on_click=_queue, args=(found,), help=note)


def _queue(found: list[Training]) -> None:
    numbers = [ADDRESS.submit(one) for one in found]
    if numbers[0]:
        ADDRESS.open(numbers[0])
