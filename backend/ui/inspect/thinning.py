"""Pruning step by step on the Inspect page: what is asked, the curve while it fills, and the race of what was found."""

from __future__ import annotations

from typing import Any, get_args

import streamlit as st

from backend.journal import Job, JournalFull
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.recipe.switch import Switch
from backend.recipe.thinning import SWITCHES, Thinning
from backend.thinned import ThinnedLane, ThinningView
from backend.ui import desk
from backend.ui.cards import error_card
from backend.ui.inspect import thincurve
from backend.ui.inspect.frame import draw_chart
from backend.ui.inspect.handover import open_bench
from backend.ui.inspect.running import REFRESH_S, draw_cancellable
from backend.ui.text import plain
from backend.ui.words import failure

ABOUT = (
    "The model of the baseline loses a step of its parts, is scored, ranked anew, and loses the next, until the budget "
    "is spent."
)


def draw_thinning(inspection: Job, race: Race, dark: bool) -> None:
    """The order, and the newest thinning that was asked from this inspection."""
    st.markdown("##### How much can go before the quality budget is spent?")
    st.caption(ABOUT)
    job = next((one for one in desk.journal().jobs(kind="thin") if one.spec.get("job") == inspection.id), None)
    _draw_order(inspection, race, busy=job is not None and not job.ended)
    if card := st.session_state.pop("thin_card", None):
        error_card(card, "The pruning was not queued")
    if job is None:
        return
    if job.ended:
        _draw_ended(job, dark)
    else:
        _follow(job.id, dark)


@st.fragment
def _draw_order(inspection: Job, race: Race, busy: bool) -> None:
    part, by, step, kld, button = st.columns([2, 2, 2.4, 2, 2], vertical_alignment="bottom")
    key = f"thin-{inspection.id}"
    chosen = part.selectbox("What goes", list(SWITCHES), key=f"{key}-part")
    ranking = by.selectbox("Ranking, anew before every step", _rankings(SWITCHES[chosen]), key=f"{key}-{chosen}-by")
    share = step.slider("Step, share of the whole", 0.01, 0.25, 0.05, step=0.01, key=f"{key}-step")
    budget = kld.number_input("Budget, KLD in nats", 0.001, 100.0, 0.1, step=0.05, format="%.3f", key=f"{key}-kld")
    asked = {"part": chosen, "by": ranking, "step": share, "kld": budget}
    label = "Prune step by step"
    if button.button(label, key=f"{key}-start", disabled=busy, width="stretch"):
        _start(inspection, race, asked)
        st.rerun(scope="app")


def _rankings(cls: type[Switch]) -> tuple[str, ...]:
    found: tuple[str, ...] = get_args(cls.model_fields["by"].annotation)
    return found


def _start(inspection: Job, race: Race, asked: dict[str, Any]) -> None:
    """Queue it."""
    try:
        order = Thinning.read({"race": race.model_dump(mode="json"), "job": inspection.id, **asked})
        desk.journal().submit("thin", order.model_dump(mode="json"), desk.owner())
    except RecipeError as error:
        st.session_state["thin_card"] = error.card()
    except JournalFull as error:
        st.session_state["thin_card"] = desk.full_card(error)


def _view_of(job: Job) -> ThinningView:
    """The folded events, kept between drawings."""
    return desk.view_of(job, "thinning", ThinningView)


@st.fragment(run_every=REFRESH_S)
def _follow(number: int, dark: bool) -> None:
    """Progress and the curve so far, once a second; when it has ended the whole page is drawn anew."""
    job = desk.journal().job(number)
    if job is None or job.ended:
        st.rerun(scope="app")
    view = _view_of(job)
    draw_cancellable(job, view.phase, "cancel-thinning")
    for lane in view.lanes.values():
        draw_chart(thincurve.chart(lane, Thinning.read(job.spec), dark), "thinning")


def _draw_ended(job: Job, dark: bool) -> None:
    """The whole curve, or what there is of it, and the way to the race."""
    view = _view_of(job)
    if view.card:
        error_card(view.card, "The pruning did not end well")
    try:
        asked = Thinning.read(job.spec)
    except RecipeError as error:
        error_card(error.card(), "It was asked by another version")
        return
    if job.state == "cancelled":
        st.caption("Cancelled. What was found until then stands below.")
    for lane in view.lanes.values():
        if lane.failure:
            st.error(plain(failure(lane.failure)))
        draw_chart(thincurve.chart(lane, asked, dark), "thinning")
        _draw_race(job, lane, asked)


def _draw_race(job: Job, lane: ThinnedLane, asked: Thinning) -> None:
    kept = lane.within(asked.kld)
    if kept is None:
        return
    if st.button("Race what kept the budget", key=f"thin-{job.id}-race", help=thincurve.NOTES[asked.part]):
        try:
            open_bench(thincurve.race_of(asked.race, thincurve.pair_of(kept, lane, asked)))
        except RecipeError as error:
            error_card(error.card())
