"""An encoder on the Bench and in the history, through AppTest: what the form shows, a race that runs, and its end."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import staged_encoding
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.race import Race
from backend.ui.encoding import exports, words

Open = Callable[..., AppTest]
MINE = {"prompt": "Something warm", "variants": [{"switches": {"int8_dynamic": {}}}]}


def shown(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.info, *app.sidebar.caption]
    return "\n".join(one.value for one in parts).replace("\\", "")


def button(app: AppTest, label: str) -> Any:
    return next(one for one in app.button if one.label == label)


@pytest.fixture
def open_encoder(open_bench: Open, tiny_encoder_folder: Path) -> Open:
    """Opens the Bench on a tiny encoder."""
    from backend.ui.share import pack

    def open_page(**fields: Any) -> AppTest:
        return open_bench(race=pack(Race.read({"model": str(tiny_encoder_folder), **MINE, **fields})))

    return open_page


def test_the_form_shows_what_fits_an_encoder_and_says_why_the_rest_does_not(open_encoder: Open) -> None:
    app = open_encoder()
    assert not app.exception
    assert [area.label for area in app.text_area] == ["Query"]
    assert not [one for one in app.number_input if one.label in ("Tokens", "Seed")]
    text = shown(app)
    assert "An encoder: sentences become vectors." in text
    assert "KV head" not in text.split("Weights, predicted")[0]
    assert "keeps no cache" in text
    assert "nothing to guess" in text
    assert "decode ceiling" not in text
    assert "make vectors of the same sentences" in text


def test_race_queues_an_encoding(open_encoder: Open, journal: Journal) -> None:
    app = open_encoder()
    button(app, "Race").click().run()
    assert not journal.jobs(kind="race")
    [job] = journal.jobs(kind="encode")
    assert Race.read(job.spec).variants[0].get("int8_dynamic")
    assert app.query_params["job"] in (str(job.id), [str(job.id)])
    assert button(app, "Race").disabled


def test_what_only_a_decoder_can_be_asked_does_not_stand_in_the_way_unseen(
    open_encoder: Open, journal: Journal
) -> None:
    app = open_encoder(budget={"kld": 0.1}, measure={"prompt_set": "mix"})
    button(app, "Race").click().run()
    [job] = journal.jobs(kind="encode")
    race = Race.read(job.spec)
    assert race.budget.kld is None
    assert race.measure.prompt_set == "one"


def test_a_running_race_shows_how_far_it_is(open_bench: Open, journal: Journal) -> None:
    job = journal.submit("encode", staged_encoding.race().model_dump(mode="json"))
    staged_encoding.play_into(journal, job, until="running")
    app = open_bench(job=str(job))
    assert not app.exception
    [bar] = app.get("progress")
    assert "measuring" in bar.proto.text.replace("\\", "")
    assert not button(app, "Cancel").disabled


@pytest.mark.parametrize("place", ["bench", "history"])
def test_a_finished_race_shows_verdict_figures_vectors_and_receipt(
    open_bench: Open, journal: Journal, place: str
) -> None:
    job = journal.submit("encode", staged_encoding.race().model_dump(mode="json"))
    staged_encoding.play_into(journal, job)
    app = open_bench(job=str(job))
    if place == "history":
        app.switch_page("pages/history.py").run()
        assert not app.exception
        assert "A 2.00x" in str(app.dataframe[0].value)
        return
    assert not app.exception
    text = shown(app)
    assert "A encodes 2.00x faster (2.00 to 2.00) in calls of 32, is 1.50x smaller, and keeps its vectors" in text
    assert len(app.get("plotly_chart")) == 2
    assert "32: 2.00x (2.00 to 2.00)" in text
    assert "In calls of one sentence it encodes 1.25x faster" in text
    assert "within noise" in text
    assert "its result depends on what shares a call" in text
    assert "70 of 80 (78% to 93%)" in text
    assert "B (simulated)" in text
    assert "Two cups of <b>coffee</b> a day." in text  # escaped in the page, as it was written here


def test_a_lost_lane_has_its_card_and_the_rest_stays(open_bench: Open, journal: Journal) -> None:
    job = journal.submit("encode", staged_encoding.race().model_dump(mode="json"))
    staged_encoding.play_into(journal, job, lose="B")
    app = open_bench(job=str(job))
    text = shown(app)
    assert "B failed. What the other lanes measured stays." in text
    assert "A encodes 2.00x faster" in text


def test_a_shape_shows_no_vectors(open_bench: Open, journal: Journal) -> None:
    job = journal.submit("encode", staged_encoding.race().model_dump(mode="json"))
    staged_encoding.play_into(journal, job, scored=False)
    text = shown(open_bench(job=str(job)))
    assert "Random weights" in text
    assert "cosine" not in text


def test_the_files_hold_every_call() -> None:
    view = staged_encoding.play(slow_rounds=2)
    whole = json.loads(exports.as_json(view, {"model": "minilm"}))
    assert len(whole["lanes"]["A"]["encoded"]) == 24
    rows = list(csv.DictReader(io.StringIO(exports.as_csv(view))))
    assert len(rows) == 3 * 8 * (32 + 4 + 1)
    assert {row["counted"] for row in rows if row["round"] in ("0", "1")} == {"0"}
    assert {row["counted"] for row in rows if row["round"] not in ("0", "1")} == {"1"}


@pytest.mark.parametrize(
    ("value", "told"), [(1.0, "1.000"), (0.99962, "0.99962"), (0.951, "0.951"), (None, "unknown"), (-0.2, "-0.200")]
)
def test_cosines_have_digits_enough(value: float | None, told: str) -> None:
    assert words.fine(value) == told
