"""A serving as it stands: verdict, slots, plots, figures and files; the same while it runs and when it has ended."""

from __future__ import annotations

import streamlit as st

from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.serving import Serving
from backend.serving.view import ServedView, ServingView
from backend.ui.cards import error_card, failure_cards
from backend.ui.figures import seconds
from backend.ui.inspect.frame import draw_chart
from backend.ui.inspect.plot import Chart
from backend.ui.serve import exports, plots, words
from backend.ui.sketch import draw_sketch
from backend.ui.text import plain

STATES = {
    "finished": "Finished",
    "cancelled": "Cancelled. What was served until then stands below",
    "failed": "Failed. What was served until then stands below",
}


def draw_served(job: Job, view: ServingView) -> None:
    """All that there is to show so far."""
    try:
        asked = Serving.read(job.spec)
    except RecipeError as error:
        error_card(error.card(), "This was asked for in another version")
        return
    if job.ended:
        _draw_end(job, view, asked)
    failure_cards(view)
    lanes = list(view.lanes.values())
    if lanes:
        _draw_plots(lanes, asked, ended=job.ended)
        _draw_figures(lanes, asked)
    if job.ended:
        _draw_files(job, view)


def _draw_end(job: Job, view: ServingView, asked: Serving) -> None:
    """How it ended, and what it showed."""
    if job.state == "failed" and view.card:
        error_card(view.card, "This was not served to its end")
    wall = f" in {seconds(view.wall_s)}" if view.wall_s else ""
    with st.container(border=True, key="serve-verdict"):
        st.caption(plain(f"Serving {job.id}. {STATES[job.state]}{wall}. {asked.model}, {asked.load.label}."))
        if view.verdict is None:
            return
        for first, rest in words.verdict(view, asked):
            st.markdown(f"##### {plain(first)}")
            st.markdown("  \n".join(plain(line) for line in rest))
        st.caption("One run of one load, on lane clocks: serve again with another seed to see how far it spreads.")


def _draw_plots(lanes: list[ServedView], asked: Serving, ended: bool) -> None:
    """Slots of every lane, one below the other on one scale of time, then a line for each in four plots."""
    dark = st.context.theme.type == "dark"
    end_s = max(lane.clock for lane in lanes)
    limits = {name: lane.limits for name, lane in asked.lanes}

    def draw(chart: Chart, key: str) -> None:
        if ended:
            draw_chart(chart, key)
        else:
            draw_sketch(chart, key, dark)

    for lane in lanes:
        draw(plots.slots(lane, dark, end_s, limits[lane.name].slots), f"slots-{lane.name}")
    for column, chart in zip([*st.columns(2), *st.columns(2)], plots.lines(lanes, dark, end_s), strict=True):
        with column:
            draw(chart, f"serve-{chart.title}")


def _draw_figures(lanes: list[ServedView], asked: Serving) -> None:
    """The table, its terms, and whether a batch wrote what one request alone gets."""
    if not any(lane.ended for lane in lanes):
        return
    st.markdown("**Figures**")
    st.dataframe(words.rows(lanes, asked.targets), hide_index=True, width="stretch", key="serve-figures")
    st.caption(plain(words.TERMS))
    for line in filter(None, map(words.alone, lanes)):
        st.caption(plain(line))


def _draw_files(job: Job, view: ServingView) -> None:
    as_json, as_csv, _ = st.columns([1, 1, 5])
    name = f"headway-serving-{job.id}"
    as_json.download_button(
        "JSON", lambda: exports.as_json(view, job.spec), f"{name}.json", "application/json", key="serve-json",
        on_click="ignore", width="stretch", help="The setting, versions and hardware, and all that each lane did.",
    )  # fmt: skip
    as_csv.download_button(
        "CSV", lambda: exports.as_csv(view), f"{name}.csv", "text/csv", key="serve-csv", on_click="ignore",
        width="stretch", help="A row for each request; seconds on the lane clock.",
    )  # fmt: skip
