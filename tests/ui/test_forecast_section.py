"""The forecast on the page: beside each switch, for the whole race before it loads, and beside what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import staged
from streamlit.testing.v1 import AppTest

from backend.catalog import model_facts, resolve
from backend.foretold import compared, forecast_events
from backend.journal import Journal
from backend.known_machines import KNOWN_MACHINES
from backend.machine import machine_key, peak_file
from backend.recipe.recipe import Recipe
from backend.ui.exports import as_json
from backend.ui.forecast_measured import in_words, rows
from backend.ui.models import effect_words, lane_words
from backend.ui.share import pack

Open = Callable[..., AppTest]


def text_of(app: AppTest) -> str:
    return "\n".join(one.value for one in [*app.markdown, *app.caption]).replace("\\", "")


def cells(app: AppTest, title: str) -> list[str]:
    """The cells of the table's row with this title."""
    line = next(line for line in text_of(app).split("\n") if line.startswith(f"| {title}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.fixture
def measured(home: Path) -> None:
    """As if the worker had measured this machine."""
    facts = {"threads": 2, "device": "cpu", "buffer_bytes": 1 << 30, "read_bytes_per_s": 2e10, "copy_bytes_per_s": 1e10,
             "reads": [[1 << 20, 5e10]], "flops_per_s": {"float32": 1e11, "bfloat16": 4e11}}  # fmt: skip
    peak_file().write_text(json.dumps({machine_key("cpu", 2): facts}))


def test_the_section_shows_lanes_side_by_side_before_anything_loads(open_bench: Open, measured: None) -> None:
    app = open_bench(race=pack(staged.race()))
    assert not app.exception
    for title in ("Parameters, attention", "Weights", "KV per token", "Peak of load", "Peak of run", "Decode ceiling"):
        assert len(cells(app, title)) == 3
    assert all(cell.endswith(" tokens") for cell in cells(app, "Longest context that fits"))
    assert all("tokens/s" in cell for cell in cells(app, "Decode ceiling here"))
    assert "if every guess is right" in text_of(app) or "if all 4 guesses are right" in text_of(app)
    for machine in KNOWN_MACHINES:
        assert machine.name in text_of(app)
    assert "predicted" in text_of(app)


def test_context_moves_cache_and_ceiling(open_bench: Open, measured: None) -> None:
    app = open_bench(race=pack(staged.race()))
    before = cells(app, "Decode ceiling here")
    box = next(one for one in app.number_input if one.label == "Context, tokens")
    box.set_value(1000).run()
    assert cells(app, "KV at 1,000 tokens")[0] == "32.8 MB"
    assert cells(app, "Decode ceiling here")[0] != before[0]
    assert not app.exception


def test_a_machine_that_was_not_measured_gets_no_speeds(open_bench: Open) -> None:
    app = open_bench()
    assert "this machine has not been measured yet" in text_of(app)
    assert "tokens/s" not in cells(app, "Decode ceiling here")[0]


def test_what_cannot_be_forecast_is_one_line(open_bench: Open) -> None:
    odd = {"model_type": "frobnicator", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
           "vocab_size": 256, "max_position_embeddings": 256}  # fmt: skip
    app = open_bench(race=pack(staged.race().model_copy(update={"model": f"shape:{json.dumps(odd)}"})))
    assert not app.exception
    assert "model_type is frobnicator" in text_of(app)
    assert "a model_type whose parts are known" in text_of(app)
    app = open_bench(race=pack(staged.race().model_copy(update={"model": "no-such-model"})))
    assert "The forecast stands here once model and setting are valid" in text_of(app)


def words(**switches: Any) -> str:
    facts = model_facts(resolve("storyteller"))
    return effect_words(facts, Recipe.read({"switches": switches}), 200)


def test_each_switch_says_what_it_does_to_memory_and_ceiling() -> None:
    assert words(int8_weight_only={}).endswith(", predicted")
    assert "decode ceiling 3" in words(int8_weight_only={})
    assert "decode ceiling 2.0" in words(cast={}) or "decode ceiling 2x" in words(cast={})
    assert "if every guess is right" in words(prompt_lookup={})
    assert words(magnitude={}) == "no effect predicted"
    assert words(threads={}) == "no effect predicted"
    facts = model_facts(resolve("storyteller"))
    assert "the unchanged model's" in lane_words(facts, Recipe.read({"switches": {"cast": {}}}), 200)


def test_it_moves_with_the_fields_of_a_switch(open_bench: Open) -> None:
    app = open_bench()
    next(one for one in app.sidebar.toggle if one.label.startswith("Whole layers")).set_value(True).run()
    first = text_of(app)
    assert "As set:" not in first
    next(one for one in app.sidebar.slider if one.label == "count").set_value(4).run()
    assert "As set: " in text_of(app)
    assert not app.exception


def test_forecast_stands_beside_measured(journal: Journal, measured: None) -> None:
    race = staged.race(48)
    job = journal.submit("race", race.model_dump(mode="json"))
    journal.append(job, forecast_events(race, model_facts(resolve("storyteller")), 11))
    view = staged.play(journal, job, race)
    found = compared(view)
    assert {row["figure"] for row in found["base"]} == {
        "weights_bytes", "kv_bytes", "run_bytes", "tokens_per_s", "prefill_s"
    }  # fmt: skip
    weights = next(row for row in found["base"] if row["figure"] == "weights_bytes")
    assert weights["error"] == pytest.approx(weights["measured"] / weights["predicted"] - 1)
    assert abs(weights["error"]) < 0.01
    table = rows(found)
    assert all(len(row) == len(table[0]) for row in table)
    assert "of the ceiling" in in_words(found)
    exported = json.loads(as_json(view, job_spec := race.model_dump(mode="json")))
    assert exported["forecast_beside_measured"] == found
    assert exported["race"] == job_spec


def test_the_result_shows_it_and_old_races_do_without(open_bench: Open, journal: Journal, measured: None) -> None:
    race = staged.race(48)
    for forecast in (True, False):
        job = journal.submit("race", race.model_dump(mode="json"))
        if forecast:
            journal.append(job, forecast_events(race, model_facts(resolve("storyteller")), 11))
        staged.play(journal, job, race)
        app = open_bench(job=str(job))
        assert not app.exception
        assert any(one.label == "Forecast beside measured" for one in app.expander) is forecast
