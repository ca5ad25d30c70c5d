"""The Train page: the form, the buttons, the training as it stands, and those of before."""

from __future__ import annotations

import streamlit as st

from backend.devices import devices
from backend.journal import Job
from backend.recipe.training import Training
from backend.trained import STUDENT, TrainingView
from backend.ui import desk
from backend.ui.cards import error_card
from backend.ui.inspect.running import draw_cancellable
from backend.ui.models import facts_of
from backend.ui.text import plain
from backend.ui.train import address, form
from backend.ui.train.address import ADDRESS
from backend.ui.train.forecast import draw_forecast
from backend.ui.train.live import draw_trained
from backend.ui.train.runs import draw_runs
from backend.ui.train.several import draw_several

SLOW_S, FAST_S = 1.0, 0.2  # where the training computes on the CPU, a redrawing takes its milliseconds from it
NOTHING = (
    "Press Train: the student is made from the model on the left, looked at on text that it never learns from, and "
    "trained. You see what the cut broke and how it comes back, and at the end the model stands in the model menu and "
    "can race at once. Races go first meanwhile: a training gives way within a step."
)


def draw_page() -> None:
    """Form, buttons and result."""
    job = ADDRESS.followed()
    form.fill(job)
    asked, card = form.draw_form()
    buttons = st.container()
    if asked is not None:
        card = draw_forecast(asked)
    with buttons:
        _draw_buttons(job, asked, asked is None or card is not None)
    for one in (card, ADDRESS.complaint()):
        if one:
            error_card(one, "This cannot be trained as it stands")
    form.draw_json(asked)
    if job is None:
        st.info(plain(NOTHING))
    elif job.ended:
        draw_trained(job, view_of(job))
    else:
        st.fragment(_follow, run_every=SLOW_S if devices()[0] == "cpu" else FAST_S)(job.id)
    draw_runs()


def _draw_buttons(job: Job | None, asked: Training | None, blocked: bool) -> None:
    """Train, share, and the row of trainings with fewer and fewer KV heads."""
    train, share, more = st.columns([1.4, 1.6, 4], vertical_alignment="bottom")
    waits = job is not None and not job.ended
    train.button(
        "Train", type="primary", key="train", on_click=address.start, args=(asked,), disabled=blocked,
        width="stretch", help="It begins when the training that is under way has ended." if waits else None,
    )  # fmt: skip
    share.button(
        "Share this setting", key="train-share", on_click=ADDRESS.share, args=(asked,), disabled=asked is None,
        width="stretch",
    )  # fmt: skip
    with more:
        draw_several(None if blocked else asked)
    ADDRESS.draw_link()


def view_of(job: Job) -> TrainingView:
    """The training's folded events, kept between drawings."""
    return desk.view_of(job, "training-view", TrainingView)


def _follow(number: int) -> None:
    """Progress, the ways to stop it, and the curves so far; the form and the rest of the page stay as they are."""
    job = desk.journal().job(number)
    if job is None or job.ended:
        facts_of.clear()  # the menu has one model more
        st.rerun(scope="app")
    view = view_of(job)
    bar, turn = st.columns([6, 1], vertical_alignment="center")
    with bar:
        if job.state == "paused":
            _draw_paused(job, view)
        else:
            draw_cancellable(job, view.phase, "cancel-training")
    paused = job.state == "paused"
    turn.button(
        "Resume" if paused else "Pause", key="train-turn", on_click=address.resume if paused else address.pause,
        args=(job,), disabled=job.cancel, width="stretch",
    )  # fmt: skip
    draw_trained(job, view)


def _draw_paused(job: Job, view: TrainingView) -> None:
    """Where it rests, and the way to end it."""
    lane = view.lane(STUDENT)
    steps = lane.begun.get("steps")
    line, cancel = st.columns([5, 1], vertical_alignment="center")
    where = f"Paused after step {lane.step:,} of {steps:,}" if steps else "Paused before it began"
    line.progress(lane.step / steps if steps else 0.0, plain(f"{where}. Nothing of it is in memory."))
    cancel.button("Cancel", key="cancel-training", on_click=lambda: desk.journal().cancel(job.id))
