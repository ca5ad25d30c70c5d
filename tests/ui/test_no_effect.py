"""A switch that changed nothing turns the verdict red: on the page, on the command line and in the JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import staged
from streamlit.testing.v1 import AppTest

from backend import cli_race, cli_table
from backend.journal import Journal
from backend.replay import RaceView
from backend.ui.no_effect import alarms, no_effect

FAILED = "attention ran as sdpa flash, not eager"
LINE = f"A, no effect: Attention kernel ({FAILED})."


def idle(kind: str = "attention_kernel") -> dict[str, Any]:
    return staged.effect(kind, FAILED) | {"took_effect": False, "skipped": []}


@pytest.fixture
def raced(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> tuple[int, RaceView]:
    """A finished race whose lane A holds a switch without effect beside one that has it."""
    monkeypatch.setitem(staged.EFFECTS, "A", [*staged.EFFECTS["A"], idle()])
    race = staged.race()
    job = journal.submit("race", race.model_dump(mode="json"))
    return job, staged.play(journal, job, race)


def test_the_alarm_names_lane_switch_and_what_was_seen() -> None:
    assert no_effect("A", {"effects": [idle()]}) == LINE
    assert no_effect("base", {"effects": [idle()]}).startswith("The baseline, no effect: ")
    assert no_effect("A", {"effects": [staged.effect("magnitude", "50% zeros")]}) == ""
    assert no_effect("A", {"effects": [idle("of_a_later_version")]}).startswith("A, no effect: of_a_later_version (")
    assert alarms(None) == []


def test_the_verdict_is_red_and_says_it_first(raced: tuple[int, RaceView], open_bench: Callable[..., AppTest]) -> None:
    job, _ = raced
    app = open_bench(job=str(job))
    assert not app.exception
    assert LINE in app.error[0].value.replace("\\", "")
    shown = "\n".join(one.value for one in app.markdown).replace("\\", "")
    assert "57 layers int8 weight-only" in shown
    assert FAILED not in shown  # said once, in the alarm


def test_the_json_and_the_command_line_say_it(raced: tuple[int, RaceView]) -> None:
    _, view = raced
    assert view.verdict is not None
    lanes = view.verdict["lanes"]
    assert lanes["A"]["no_effect"] == ["attention_kernel"]
    assert lanes["B"]["no_effect"] == []
    result = cli_race.report(view, staged.race())
    assert result["verdict"]["lanes"]["A"]["no_effect"] == ["attention_kernel"]
    assert cli_table.table(result).startswith(LINE)
