"""The Inspect page through AppTest: nothing yet, queued, running, finished, failed, and how one gets there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import staged
import staged_inspection
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.inspection import Inspection
from backend.traces import traces_folder
from backend.ui.inspect import exports, heads, memory, outliers, roofline, sensitivity
from backend.ui.inspect import time as times

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., AppTest]


@pytest.fixture
def open_inspect(open_at: Callable[..., Open]) -> Open:
    """Opens the page; keyword arguments are the address's parameters."""
    return open_at("inspect")


def a_race(journal: Journal, until: str = "finished") -> int:
    race = staged.race()
    job = journal.submit("race", race.model_dump(mode="json"))
    staged.play(journal, job, race, until=until)
    return job


def an_inspection(journal: Journal, race: int, until: str = "finished") -> int:
    job = journal.submit("inspect", {"race": journal.job(race).spec, "job": race})
    staged_inspection.play(journal, job, race, until=until)
    return job


def shown(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.info]
    return "\n".join(one.value for one in parts).replace("\\", "")


def button(app: AppTest, label: str):
    return next(one for one in app.button if one.label == label)


def test_without_a_race_it_says_what_to_do(open_inspect: Open) -> None:
    app = open_inspect()
    assert not app.exception
    assert "Press Race on the Bench" in app.info[0].value


def test_the_newest_race_is_chosen_and_inspect_queues_it(open_inspect: Open, journal: Journal) -> None:
    a_race(journal)
    newest = a_race(journal, until="cancelled")
    app = open_inspect()
    assert not app.exception
    assert app.selectbox[0].value == newest
    assert "Nothing was looked into yet" in shown(app)
    button(app, "Inspect").click().run()
    [job] = journal.jobs(kind="inspect")
    assert job.spec["job"] == newest
    assert Inspection.read(job.spec).race == staged.race()
    assert app.query_params["inspect"] in (str(job.id), [str(job.id)])
    assert button(app, "Inspect").disabled


def test_the_address_names_a_race_or_an_inspection(open_inspect: Open, journal: Journal) -> None:
    first, second = a_race(journal), a_race(journal)
    job = an_inspection(journal, first)
    assert open_inspect(inspect=str(first)).selectbox[0].value == first
    app = open_inspect(inspect=str(job))
    assert app.selectbox[0].value == first
    assert f"Inspection {job}. Finished in 61.0 s" in shown(app)
    assert open_inspect(inspect=str(second)).selectbox[0].value == second
    for nonsense in ("x", "-1", "9" * 40, "999"):
        assert not open_inspect(inspect=nonsense).exception


def test_a_running_one_shows_how_far_it_is_and_can_be_cancelled(open_inspect: Open, journal: Journal) -> None:
    job = an_inspection(journal, a_race(journal), until="running")
    journal.claim("a worker", "inspect")
    app = open_inspect(inspect=str(job))
    assert not app.exception
    assert button(app, "Inspect").disabled
    assert "Done: baseline." in shown(app)
    assert "timing parts, 12%, 31 s left, estimated" in str(app.get("progress")[0].proto).replace("\\", "")
    button(app, "Cancel").click().run()
    assert journal.cancelled(job)


def test_a_finished_one_answers_every_question(open_inspect: Open, journal: Journal) -> None:
    race = a_race(journal)
    job = an_inspection(journal, race)
    (traces_folder() / "inspect-1-base-decode.json.gz").write_bytes(b"packed")
    app = open_inspect(inspect=str(job))
    assert not app.exception
    text = shown(app)
    names = ["Time", "Operators", "Roofline", "Memory", "Heads", "Pruning", "Sensitivity", "Outliers", "Context"]
    assert [tab.label for tab in app.tabs] == names
    assert "Baseline 6.90 ms: feed-forward 58%" in text
    assert "layer 3 is the slowest" in text
    assert "aten::mm 75%" in text
    assert "the time is bound" in text
    assert "Peak 150 MB in the phase load" in text
    assert "model.layers.3.mlp.down_proj (largest 402 times the rms, in channel 443 at token 0; 94%" in text
    assert "layer 3 suffers most, KLD 0.400" in text
    assert "(simulated)" in text
    assert "B could not be looked into to the end" in text
    assert "The trace's file was removed" in text
    assert len(app.get("plotly_chart")) >= 10
    tables = {tuple(frame.value.columns) for frame in app.dataframe}
    assert ("Operator", "Calls", "Self, ms", "Share", "Total, ms") in tables


def test_a_lane_without_gradients_says_why(open_inspect: Open, journal: Journal) -> None:
    job = an_inspection(journal, a_race(journal))
    app = open_inspect(inspect=str(job))
    radio = next(one for one in app.radio if one.key == "inspect-lane-heads")
    radio.set_value("A").run()
    assert not app.exception
    assert "no gradient passes through packed layers" in shown(app)


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_one_that_ended_early_keeps_what_it_found(open_inspect: Open, journal: Journal, state: str) -> None:
    job = an_inspection(journal, a_race(journal), until=state)
    app = open_inspect(inspect=str(job))
    assert not app.exception
    text = shown(app)
    assert f"{state.capitalize()}. What was found until then stands below" in text
    assert "feed-forward 58%" in text
    if state == "failed":
        assert "a model that is here" in text


def test_one_that_failed_at_once_is_a_card(open_inspect: Open, journal: Journal) -> None:
    race = a_race(journal)
    job = journal.submit("inspect", {"race": journal.job(race).spec, "job": race})
    card = {"field": "model", "value": "x", "allowed": "a model that is here", "remedy": "Choose another."}
    journal.append(job, [("failed", None, {"card": card})])
    journal.finish(job, "failed")
    app = open_inspect(inspect=str(job))
    assert not app.exception
    assert "Choose another." in shown(app)
    assert not app.tabs


def test_an_inspection_from_elsewhere_needs_no_race(open_inspect: Open, journal: Journal) -> None:
    job = journal.submit("inspect", {"race": staged.race().model_dump(mode="json"), "job": None})
    staged_inspection.play(journal, job, None)
    app = open_inspect(inspect=str(job))
    assert not app.exception
    assert "feed-forward 58%" in shown(app)


def test_the_result_of_a_race_leads_here(open_bench: Open, journal: Journal) -> None:
    race = a_race(journal)
    app = open_bench(job=str(race))
    button(app, "Inspect").click().run()
    assert not app.exception
    assert app.selectbox[0].label == "Race"
    assert app.selectbox[0].value == race


def test_every_value_is_in_the_export(journal: Journal) -> None:
    race = a_race(journal)
    job = an_inspection(journal, race)
    view = staged_inspection.play(journal, job, race)
    whole = json.loads(exports.as_json(view, journal.job(job).spec))
    assert whole["lanes"]["base"]["times"]["decode"]["parts"] == staged_inspection.times(1.0)["decode"]["parts"]
    assert whole["lanes"]["base"]["sensitivity"]["int4"]["3"]["kld"] == 0.4
    assert whole["inspection"]["job"] == race


def test_plots_say_in_words_what_they_show(journal: Journal) -> None:
    race = a_race(journal)
    view = staged_inspection.play(journal, an_inspection(journal, race), race)
    lanes = list(view.lanes.values())
    base, variant, lost = lanes
    charts = [
        *(times.by_part(lanes, shape, False) for shape in times.CALLS),
        times.by_layer(lanes, "decode", True),
        roofline.chart(lanes, False),
        *memory.charts(lanes, True),
        heads.head_map(base, "importance", False),
        heads.attention_map(base, 0, 1, False),
        sensitivity.chart(base, "int4", False),
        outliers.by_layer(variant, False),
        outliers.histogram(base, "model.layers.3.mlp.down_proj", True),
    ]
    for chart in charts:
        assert chart.figure is not None, chart.title
        assert chart.summary.endswith((".", "shown."))
    by_part = charts[0].figure
    assert sum(trace.x[0] for trace in by_part.data) == pytest.approx(6.9)
    assert sum(trace.x[1] for trace in by_part.data) == pytest.approx(3.45)
    marks = {row["Part"]: row["Bound by"] for row in roofline.rows([base]) if row["Call"] == "decode"}
    assert marks["feed-forward"] == "memory"
    assert marks["norms"] == "overhead"
    for empty in (
        times.by_part([lost], "decode", False),
        roofline.chart([lost], False),
        heads.head_map(lost, "entropy", False),
        sensitivity.chart(lost, "int4", False),
        outliers.by_layer(lost, False),
    ):
        assert empty.figure is None
        assert empty.summary


def test_tokens_are_shown_as_text(journal: Journal) -> None:
    race = a_race(journal)
    view = staged_inspection.play(journal, an_inspection(journal, race), race)
    chart = heads.attention_map(view.lanes["base"], 0, 0, False)
    assert "&lt;b&gt;was&lt;/b&gt;" in "".join(chart.figure.layout.xaxis.ticktext)
