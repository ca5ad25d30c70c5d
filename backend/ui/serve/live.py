"""A serving as it stands: verdict, slots, plots, figures and files; the same while it runs and when it has ended."""

from __future__ import annotations

import streamlit as st

from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.serving import Serving
from backend.serving.view import ServingView
from backend.ui import words as common
from backend.ui.cards import error_card
from backend.ui.inspect.frame import draw_chart
from backend.ui.palette import look
from backend.ui.serve import exports, plots, words
from backend.ui.text import plain


def draw_served(job: Job, view: ServingView) -> None:
    """All that there is to show so far."""
    try:
        asked = Serving.read(job.spec)
    except RecipeError as error:
        error_card(error.card(), "This was asked for in another version")
        return
    _head(job, view)
    lanes = list(view.lanes.values())
    if any(lane.samples for lane in lanes):
        dark = st.context.theme.type == "dark"
        end_s = max(lane.clock for lane in lanes)
        for lane in lanes:
            draw_chart(plots.slots(lane, dark, end_s), f"slots-{lane.name}")
        for column, chart in zip([*st.columns(2), *st.columns(2)], plots.lines(lanes, dark), strict=True):
            with column:
                draw_chart(chart, f"serve-{chart.title}")
        st.dataframe(words.rows(lanes, asked.targets), hide_index=True, width="stretch", key="serve-figures")
        for line in filter(None, map(words.alone, lanes)):
            st.caption(plain(line))
    if job.ended:
        _files(job, view)


def _head(job: Job, view: ServingView) -> None:
    """How it ended, what it showed, and who failed."""
    if job.state == "failed" and view.card:
        error_card(view.card, "This was not served")
    if job.state == "cancelled":
        st.warning("Cancelled. What was served before is shown.")
    if view.verdict is not None:
        with st.container(border=True, key="serve-verdict"):
            for line in words.sentences(view):
                st.markdown(f"##### {plain(line)}")
            st.caption("One run of one load, on lane clocks: serve again with another seed to see how far it spreads.")
    for lane in view.lanes.values():
        if lane.failure is not None:
            title = f"{look(lane.name).title.capitalize()} failed. What the other lanes served stays."
            st.error(f"**{plain(title)}**\n\n{plain(common.failure(lane.failure))}")


def _files(job: Job, view: ServingView) -> None:
    left, right, _ = st.columns([1, 1, 5])
    name = f"headway-serving-{job.id}"
    left.download_button(
        "JSON", lambda: exports.as_json(view, job.spec), f"{name}.json", "application/json", key="serve-json",
        on_click="ignore",
    )  # fmt: skip
    right.download_button(
        "CSV", lambda: exports.as_csv(view), f"{name}.csv", "text/csv", key="serve-csv", on_click="ignore"
    )
