"""What a race leaves on the page: verdict, failures, exports, presets, History."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import staged
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.base import RecipeError
from backend.replay import RaceView
from backend.ui import exports, shelf

Open = Callable[..., AppTest]
ROOT = Path(__file__).resolve().parents[2]


def run_race(journal: Journal, until: str = "finished") -> tuple[int, RaceView]:
    race = staged.race()
    job = journal.submit("race", race.model_dump(mode="json"))
    return job, staged.play(journal, job, race, until=until)


def shown(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error]
    return "\n".join(one.value for one in parts).replace("\\", "")


def test_a_finished_race_shows_its_verdict(open_bench: Open, journal: Journal) -> None:
    job, _ = run_race(journal)
    app = open_bench(job=str(job))
    assert not app.exception
    text = shown(app)
    assert "A is 1.7" in text
    assert "slower" in text
    assert "(simulated)" in text
    assert "57 layers int8 weight-only" in text
    assert "norms stay fp32" in text


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_a_race_that_ended_early_keeps_what_it_measured(open_bench: Open, journal: Journal, state: str) -> None:
    job, _ = run_race(journal, until=state)
    app = open_bench(job=str(job))
    assert not app.exception
    assert f"{state.capitalize()}. What was measured until then stands below" in shown(app)
    if state == "failed":
        assert "B failed. What the other lanes measured stays." in shown(app)


def test_a_running_race_is_found_again_by_its_address(open_bench: Open, journal: Journal) -> None:
    job, _ = run_race(journal, until="running")
    journal.claim("a worker", "race")
    app = open_bench(job=str(job))
    assert not app.exception
    assert next(one for one in app.button if one.label == "Cancel").disabled is False


def test_a_job_that_is_not_there_is_no_trouble(open_bench: Open) -> None:
    for job in ("999", "x", "-1", "9" * 40):
        assert not open_bench(job=job).exception


def test_json_and_csv_hold_every_raw_value(journal: Journal) -> None:
    job, view = run_race(journal)
    whole = json.loads(exports.as_json(view, journal.job(job).spec))
    assert whole["lanes"]["A"]["clock"] == view.lanes["A"].clock
    assert whole["lanes"]["B"]["requests"] == view.lanes["B"].requests
    assert whole["race"]["prompt"] == staged.race().prompt
    rows = list(csv.DictReader(io.StringIO(exports.as_csv(view))))
    for name, lane in view.lanes.items():
        own = [row for row in rows if row["lane"] == name]
        tokens = [row for row in own if row["record"] == "token"]
        assert [float(row["clock_s"]) for row in tokens] == lane.clock
        assert "".join(json.loads(row["text_json"]) for row in tokens) == lane.text
        assert [float(r["kld_nats"]) for r in own if r["record"] == "score"] == lane.decode.kld
        assert sum(row["record"] == "request" for row in own) == len(lane.requests)
        assert {row["simulated"] for row in own} == {"1" if name == "B" else "0"}


def test_a_saved_preset_stands_in_the_menu(home: Path) -> None:
    name = shelf.save("My own: fast & small", staged.race())
    assert shelf.load(name).race == staged.race()
    assert shelf.titles()[name] == "My own: fast & small"
    with pytest.raises(RecipeError, match="taken"):
        shelf.save("my own fast small", staged.race())
    with pytest.raises(RecipeError, match="letters"):
        shelf.save("???", staged.race())


def test_a_preset_that_cannot_be_read_is_named_and_does_no_harm(home: Path) -> None:
    shelf.own_folder().mkdir()
    (shelf.own_folder() / "broken.json").write_text("{")
    assert shelf.titles()["own/broken"] == "broken (cannot be read)"
    with pytest.raises(RecipeError, match="JSON"):
        shelf.load("own/broken")


def history(rows: list[int] | None = None) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    return app.switch_page("pages/history.py").run()


def test_an_empty_history_says_what_to_do(journal: Journal) -> None:
    app = history()
    assert "Press Race on the Bench" in app.info[0].value


def test_history_lists_races_with_their_ratios(journal: Journal) -> None:
    run_race(journal)
    run_race(journal, until="cancelled")
    app = history()
    assert not app.exception
    table = app.dataframe[0].value
    assert list(table["State"]) == ["cancelled", "finished"]
    assert table["Speed"][1].startswith("A 1.7")
    assert "B 0.8" in table["Speed"][1]
    assert "(simulated)" in table["Speed"][1]
