"""A training as it stands: curves, what it writes, notes, figures and files; the same while it runs and at its end."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.recipe.training import Training
from backend.trained import STUDENT, TrainedLane, TrainingView
from backend.ui.cards import error_card, order_or_card
from backend.ui.inspect.frame import draw_chart
from backend.ui.inspect.handover import open_bench
from backend.ui.inspect.plot import Chart
from backend.ui.sketch import draw_sketch
from backend.ui.text import plain
from backend.ui.train import address, curves, exports, names, racing, words
from backend.ui.train.bars import draw_bars

STATES = {
    "finished": "Finished",
    "cancelled": "Cancelled. What was measured until then stands below",
    "failed": "Failed. What was measured until then stands below",
}
MEMORY = {
    "weights_bytes": "weights",
    "gradient_bytes": "gradients",
    "optimizer_bytes": "optimizer",
    "peak_bytes": "peak of all",
}


def draw_trained(job: Job, view: TrainingView) -> None:
    """All that there is to show so far."""
    asked = order_or_card(job.spec, Training)
    if asked is None:
        return
    lane = view.lane(STUDENT)
    if job.ended:
        _draw_end(job, view, lane, asked)
    if lane.begun:
        _draw_curves(job, lane)
        _draw_samples(lane)
    for line in words.notes(view, lane):
        st.caption(plain(line))
    if job.ended and lane.looks:
        st.markdown("**Looks**")
        st.dataframe(list(words.rows(lane)), hide_index=True, width="stretch", key="train-looks")
        st.caption(plain(words.TERMS))
    if job.ended:
        _draw_files(job, view)


def _draw_end(job: Job, view: TrainingView, lane: TrainedLane, asked: Training) -> None:
    """How it ended, what it showed, and what can be done next."""
    if job.state == "failed" and view.card:
        error_card(view.card, "This was not trained to its end")
    with st.container(border=True, key="train-verdict"):
        st.caption(plain(f"Training {job.id}. {STATES[job.state]}. {asked.model}: {asked.label}."))
        if lane.looks:
            st.markdown(f"##### {plain(words.headline(lane, asked.name))}")
            st.markdown("  \n".join(plain(line) for line in words.details(lane, asked)))
            st.caption("One run with one seed: train again with another to see how far it spreads.")
        if lane.saved:
            _draw_races(lane, asked)
        elif job.state != "finished":
            _draw_resume(job, asked)


def _draw_races(lane: TrainedLane, asked: Training) -> None:
    """What came out against its teacher, and where it can guess for its teacher as its draft."""
    with st.container(horizontal=True):
        note = "Opens the Bench with the teacher, the student before it was trained, and the trained one."
        if st.button("Race it", type="primary", key="train-race", help=note):
            _race(racing.race_data(asked))
        note = "Opens the Bench with the teacher alone, guessing by the untrained student, and by the trained one."
        if racing.can_draft(lane) and st.button("Race it as a draft", key="train-draft", help=note):
            _race(racing.draft_race_data(asked, lane.begun.get("layers", [])))


def _race(data: dict[str, Any]) -> None:
    try:
        open_bench(Race.read(data))
    except RecipeError as error:
        error_card(error.card())


def _draw_resume(job: Job, asked: Training) -> None:
    """The way on, where a checkpoint of this training lies."""
    try:
        step = names.check_name(asked, job.id)
    except RecipeError:
        return  # the name is another's by now
    if step:
        label = f"Resume after step {step:,}"
        st.button(label, key="train-resume", on_click=address.resume, args=(job,))


def _draw_curves(job: Job, lane: TrainedLane) -> None:
    dark = st.context.theme.type == "dark"
    planned = lane.begun["steps"] * lane.begun["step_tokens"]
    end = lane.step * lane.begun["step_tokens"] if job.ended and lane.step else planned
    large = [*curves.steps(lane, dark, end)[:1], *curves.quality(lane, dark, end)]
    small = [*curves.pace(lane, dark, end), *curves.steps(lane, dark, end)[1:]]
    for start in range(0, len(large), 2):
        for column, chart in zip(st.columns(2), large[start : start + 2], strict=False):
            with column:
                _draw(chart, dark, job.ended)
    for start in range(0, len(small), 3):
        for column, chart in zip(st.columns(3), small[start : start + 3], strict=False):
            with column:
                _draw(chart, dark, job.ended)
    held = lane.steps[-1].get("memory", {}) if lane.steps else {}
    last = "Weights, gradients and optimizer of the student; the peak is of the whole process, the teacher in it."
    draw_bars("Memory", {title: held.get(key) or 0 for key, title in MEMORY.items()}, "train-memory", last)
    st.caption(plain(words.text_line(lane)))


def _draw(chart: Chart, dark: bool, ended: bool) -> None:
    key = f"train-{chart.title}"
    if ended:
        draw_chart(chart, key)
    else:
        draw_sketch(chart, key, dark)


def _draw_samples(lane: TrainedLane) -> None:
    """What teacher and student write after the same beginning, as text and never as markup."""
    shown = [("Teacher", lane.teacher)] if lane.teacher else []
    shown += [("Student before", lane.looks[0])] if lane.looks else []
    shown += [(f"Student after step {lane.looks[-1]['step']:,}", lane.looks[-1])] if len(lane.looks) > 1 else []
    shown = [(title, look) for title, look in shown if look.get("sample")]
    if not shown:
        return
    st.markdown("**What they write after the same beginning of a held-out text**")
    for column, (title, look) in zip(st.columns(3), shown, strict=False):
        with column:
            st.caption(plain(title))
            st.code(look["sample"], language=None, wrap_lines=True)


def _draw_files(job: Job, view: TrainingView) -> None:
    as_json, as_csv, _ = st.columns([1, 1, 5])
    name = f"headway-training-{job.id}"
    as_json.download_button(
        "JSON", lambda: exports.as_json(view, job.spec), f"{name}.json", "application/json", key="train-json",
        on_click="ignore", width="stretch", help="The recipe, versions and hardware, every step and every look.",
    )  # fmt: skip
    as_csv.download_button(
        "CSV", lambda: exports.as_csv(view), f"{name}.csv", "text/csv", key="train-csv", on_click="ignore",
        width="stretch", help="A row for each step and each look.",
    )  # fmt: skip
