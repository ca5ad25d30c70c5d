"""'Save model' through AppTest: what it orders, what the journal says of it, and what stands there afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import staged
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.recipe import Recipe
from backend.saved import MARKER, WEIGHTS, Saved

Open = Callable[..., AppTest]


@pytest.fixture
def race(journal: Journal) -> int:
    """A race that has ended."""
    order = staged.race()
    job = journal.submit("race", order.model_dump(mode="json"))
    staged.play(journal, job, order)
    return job


def button(app: AppTest, key: str) -> Any:
    return next((one for one in app.button if one.key == key), None)


def press(app: AppTest, name: str) -> None:
    app.text_input(key="bench-model-name-A").set_value(name).run()
    button(app, "bench-model-save").click().run()


def bar(app: AppTest) -> str:
    return "\n".join(one.proto.text for one in app.get("progress")).replace("\\", "")


def errors(app: AppTest) -> str:
    return "\n".join(one.value for one in app.error).replace("\\", "")


def test_it_orders_the_lane_under_its_name(open_bench: Open, journal: Journal, race: int) -> None:
    app = open_bench(job=str(race))
    assert not app.exception
    assert app.selectbox(key="bench-model-lane").value == "A"
    assert app.text_input(key="bench-model-name-A").value.startswith("storyteller-")
    press(app, "mine-8")
    [job] = journal.jobs(kind="save")
    assert (job.spec["lane"], job.spec["name"], job.spec["job"]) == ("A", "mine-8", race)
    assert "Saving mine-8: Waiting for its turn." in bar(app)
    journal.claim("a worker", "save")
    data = {"name": "saving", "done": 0.4, "total": 1.0, "eta_s": 12.0, "text": "Reading lm_head"}
    journal.append(job.id, [("phase", None, data)])
    app.run()
    assert "Reading lm_head, 12 s left" in bar(app)
    button(app, "bench-model-cancel").click().run()
    assert journal.cancelled(job.id)
    assert "cancelling" in bar(app)


@pytest.mark.parametrize("name", ["a/b", "gemma", "there", ""])
def test_a_name_that_cannot_be_is_a_card(open_bench: Open, journal: Journal, home: Path, race: int, name: str) -> None:
    (home / "models" / "there").mkdir(parents=True)
    app = open_bench(job=str(race))
    press(app, name)
    assert "The model was not saved" in errors(app)
    assert journal.jobs(kind="save") == []


def test_a_saving_that_failed_shows_its_card(open_bench: Open, journal: Journal, race: int) -> None:
    app = open_bench(job=str(race))
    press(app, "mine-8")
    [job] = journal.jobs(kind="save")
    card = {"field": "out", "value": "no space", "allowed": "a place", "remedy": "Free some space."}
    journal.append(job.id, [("failed", None, {"card": card})])
    journal.finish(job.id, "failed")
    app.run()
    assert "What to do: Free some space." in errors(app)
    assert not app.get("progress")


def test_a_saved_model_stands_in_the_menu_with_its_sizes(
    open_bench: Open, journal: Journal, home: Path, race: int
) -> None:
    app = open_bench(job=str(race))
    press(app, "mine-8")
    [job] = journal.jobs(kind="save")
    folder = home / "models" / "mine-8"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / WEIGHTS).write_bytes(b"\0" * 1000)
    recipe = Recipe.read({"switches": {"int8_weight_only": {}}})
    saved = Saved(source="storyteller", origin="storyteller", recipe=recipe, weights_bytes=1000, original_bytes=4000)
    (folder / MARKER).write_text(json.dumps(saved.model_dump(mode="json")))
    journal.append(job.id, [("finished", None, {"wall_s": 3.0})])
    journal.finish(job.id, "finished")
    app.run()
    said = "\n".join(one.value for one in app.success).replace("\\", "")
    assert "as mine-8" in said
    assert "4.00 times smaller than the original in fp32" in said
    options = next(one for one in app.selectbox if one.label == "Model").options
    assert "mine-8: storyteller, int8 weights" in options
