"""An inspection while it runs: how far it is, what is left, and the way to end it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.journal import Job
from backend.ui import desk, words
from backend.ui.inspect.pick import view_of
from backend.ui.palette import look
from backend.ui.text import plain

REFRESH_S = 1.0
Phase = dict[str, Any] | None


def draw_running(job: Job) -> None:
    """Progress once a second; when it has ended the whole page is drawn anew."""
    _follow(job.id)


@st.fragment(run_every=REFRESH_S)
def _follow(number: int) -> None:
    job = desk.journal().job(number)
    if job is None or job.ended:
        st.rerun(scope="app")
    view = view_of(job)
    draw_cancellable(job, view.phase, "cancel-inspection")
    done = [look(name).title for name, lane in view.lanes.items() if lane.done]
    st.caption(plain(f"Done: {', '.join(done)}." if done else "Each lane is loaded, looked into, and ended in turn."))


def draw_cancellable(job: Job, phase: Phase, key: str) -> None:
    """How far a job is, and the button that ends it."""
    bar, cancel = st.columns([5, 1], vertical_alignment="center")
    with bar:
        draw_progress(job, phase)
    cancel.button("Cancel", key=key, on_click=lambda: desk.journal().cancel(job.id), disabled=job.cancel)


def draw_progress(job: Job, phase: Phase) -> None:
    """A bar with the step in hand, or with why the job has not begun."""
    if job.state == "queued" or not phase:
        st.progress(0.0, plain(waiting_words(job)))
        return
    share = min(1.0, phase["done"] / phase["total"]) if phase.get("total") else 0.0
    st.progress(share, plain(progress_words(phase, job)))


def waiting_words(job: Job) -> str:
    """Why it has not begun."""
    if not desk.journal().workers():
        return words.NO_WORKER
    place = desk.journal().place(job.id)
    if job.state != "queued":
        return "Starting."
    return "Next in turn." if place == 0 else f"{place} job{'s' if place > 1 else ''} before this one."


def progress_words(phase: dict[str, object], job: Job) -> str:
    """The step in hand and the time left: 'timing parts, 42%, 31 s left, estimated'."""
    if job.cancel:
        return "Cancelling: it ends with the step in hand."
    done, total = float(str(phase["done"])), float(str(phase["total"]))
    eta = phase.get("eta_s")
    left = words.left(float(str(eta))) if eta is not None else ""
    parts = [str(phase["name"]), str(phase.get("text") or ""), f"{done / total:.0%}" if total else ""]
    return ", ".join(part for part in (*parts, f"{left}, estimated" if left else "") if part)
