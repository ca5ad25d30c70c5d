"""An encoder's race on the Bench and in the history: its progress, and how it ended."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.encodingview import EncodingLane, EncodingView
from backend.journal import Job
from backend.ui import desk
from backend.ui.cards import error_card, failure_cards
from backend.ui.encoding import exports, words
from backend.ui.figures import seconds
from backend.ui.inspect.running import draw_progress
from backend.ui.measured import draw_suspicions
from backend.ui.no_effect import alarms
from backend.ui.palette import look
from backend.ui.receipt_table import draw_receipts
from backend.ui.result import STATES
from backend.ui.text import plain

REFRESH_S = 0.5
EMPTY = (
    "Press Race: the original and the changed encoder make vectors of the same sentences. Their speed is measured one "
    "by one, in calls of 8 and in calls of 32, and their vectors are compared."
)


def view_of(job: Job, shelf: str) -> EncodingView:
    """The race's folded events, kept between drawings."""
    return desk.view_of(job, shelf, EncodingView)


def draw_encoding(job: Job, key: str) -> None:
    """The race as it stands."""
    if job.ended:
        _draw_ended(view_of(job, f"{key}:encoding"), job, key)
    else:
        _follow(job.id, key)


@st.fragment(run_every=REFRESH_S)
def _follow(number: int, key: str) -> None:
    """Progress twice a second; the whole page is drawn anew at the end."""
    job = desk.journal().job(number)
    if job is None or job.ended:
        st.rerun(scope="app")
    phase = view_of(job, f"{key}:encoding").phase
    draw_progress(job, phase)


def _draw_ended(view: EncodingView, job: Job, key: str) -> None:
    """Verdict, figures, receipt, what the query found, and what can be taken away."""
    if view.card:
        error_card(view.card, "The race did not end well")
    wall = f" in {seconds(view.wall_s)}" if view.wall_s else ""
    _draw_verdict(view, f"Race {job.id}. {STATES[job.state]}{wall}.", key)
    failure_cards(view)
    if view.verdict:
        _draw_charts(view.verdict, key)
        _draw_figures(view, key)
    draw_receipts({name: lane.receipt for name, lane in view.lanes.items() if lane.receipt})
    _draw_found(view, str(job.spec.get("prompt", "")))
    _take_away(view, job, key)


def _draw_verdict(view: EncodingView, ended: str, key: str) -> None:
    with st.container(border=True, key=f"{key}-encoding-verdict"):
        st.caption(plain(ended))
        if view.verdict is None:
            return
        for line in alarms(view.verdict):
            st.error(f"**{plain(line)}**")
        base = view.verdict["lanes"].get("base", {})
        for name, lane in view.verdict["lanes"].items():
            if name == "base":
                continue
            first, *rest = words.sentences(name, lane, base)
            st.markdown(f"##### {plain(first)}")
            st.markdown("  \n".join(plain(line) for line in rest))
        draw_suspicions(view.verdict)
        for note in view.verdict.get("notes", ()):
            st.caption(plain(note))


def _draw_figures(view: EncodingView, key: str) -> None:
    verdict: dict[str, Any] = view.verdict or {}
    held = {name: lane.memory for name, lane in view.lanes.items()}
    with st.container(border=True, key=f"{key}-encoding-figures"):
        st.markdown("**Speed**")
        _draw_table(words.speed_rows(verdict))
        st.caption(plain(words.summary(verdict)))
        st.markdown("**Memory**")
        _draw_table(words.memory_rows(verdict, held))
        if len(rows := words.worth_rows(verdict)) > 1:
            st.markdown("**Vectors**")
            _draw_table(rows)
            st.caption(plain(words.WORTH))
        elif view.opened.get("scored") is False:
            st.caption("Random weights: the vectors mean nothing, so they are not compared.")


def _draw_charts(verdict: dict[str, Any], key: str) -> None:
    """Both plots beside each other, each with its summary in words."""
    from backend.ui.encoding.plot import charts  # plotly takes a third of a second, which an empty page does not need

    dark = st.context.theme.type == "dark"
    for place, (column, chart) in enumerate(zip(st.columns(2), charts(verdict, dark), strict=True)):
        with column, st.container(border=True):
            st.markdown(f"**{plain(chart.title)}**")
            if chart.figure is not None:
                name = f"{key}-encoding-chart-{place}"
                st.plotly_chart(chart.figure, key=name, theme=None, config={"displayModeBar": False})
            st.caption(plain(chart.summary))


def _draw_table(rows: list[list[str]]) -> None:
    """A table in markdown, the row of titles first; nothing where there is no other row."""
    if len(rows) < 2:
        return
    head, *body = [f"| {' | '.join(plain(cell) for cell in row)} |" for row in rows]
    rule = f"| :-- |{' --: |' * (len(rows[0]) - 1)}"
    st.markdown("\n".join([head, rule, *body]))


def _draw_found(view: EncodingView, query: str) -> None:
    """What each lane finds nearest to the query."""
    lanes = [lane for lane in view.lanes.values() if lane.found]
    if not lanes:
        return
    with st.expander("Nearest to the query"):
        st.caption(plain(f"Of this project's own sentences, those whose vectors are nearest to: {query}"))
        for column, lane in zip(st.columns(len(lanes)), lanes, strict=True):
            with column:
                _draw_hits(lane)


def _draw_hits(lane: EncodingLane) -> None:
    st.markdown(f"**{plain(look(lane.name).title)}** {plain(lane.label)}")
    for hit in lane.found:
        st.markdown(f"{plain(words.fine(hit['cosine']))} {plain(hit['sentence'])} :small[{plain(hit['topic'])}]")


def _take_away(view: EncodingView, job: Job, key: str) -> None:
    as_json, as_csv, _ = st.columns([1, 1, 3])
    name = f"headway-race-{job.id}"
    made = {"json": lambda: exports.as_json(view, job.spec), "csv": lambda: exports.as_csv(view)}
    for column, kind, media in ((as_json, "json", "application/json"), (as_csv, "csv", "text/csv")):
        column.download_button(
            kind.upper(),
            made[kind],
            f"{name}.{kind}",
            media,
            key=f"{key}-encoding-{kind}",
            on_click="ignore",
            width="stretch",
        )
