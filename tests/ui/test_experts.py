"""The experts of a race on the page: the table under the card, and what the live element is told."""

from __future__ import annotations

from typing import Any

import staged

from backend.journal import Event
from backend.replay import RaceView
from backend.ui.experts import expert_rows
from backend.ui.live.feed import lane_data
from backend.verdict import build_verdict

PROMPT = {"counts": [[3, 1, 0], [2, 2, 0]], "pairs": 8, "dropped": 2}


def view_of(*events: tuple[str, str | None, dict[str, Any]]) -> RaceView:
    view = RaceView()
    for kind, lane, data in events:
        view.apply(Event(0, 1, 0.0, kind, lane, data))
    return view


def raced() -> RaceView:
    """Lane A has experts, the others have none."""
    told = [event for events in (*staged.opening(8), *staged.racing(8)) for event in events]
    routing = [
        ("routing", "A", {"experts": 3, "picks": [], "prompt": PROMPT}),
        ("routing", "A", {"experts": 3, "picks": [[[0, 1], [1, 2]], [[1, 0], [2, 0]]]}),
        ("forecast", "A", {"active_parameters": 9.9e6, "moved_bytes": 40e6}),
    ]
    view = view_of(*told, *routing)
    view.verdict = build_verdict(view, staged.race(8))
    return view


def test_the_table_counts_prompt_and_text() -> None:
    rows = dict(expert_rows(raced()))
    assert rows["Experts a token"] == {"A": "2 of 3"}
    assert rows["Idle experts, all layers"] == {"A": "1"}
    assert rows["Choices dropped of the prompt"] == {"A": "25%"}
    assert rows["Parameters that a token passes"]["A"] == "9.90M of 25.7M"
    assert rows["Read for a token (predicted)"] == {"A": "40.0 MB"}
    assert rows["Share of the weights that a token reads (predicted)"] == {"A": "111%"}


def test_a_race_without_experts_has_no_such_table() -> None:
    view = view_of(*(event for events in staged.opening(8) for event in events))
    view.verdict = build_verdict(view, staged.race(8))
    assert list(expert_rows(view)) == []


def test_the_element_gets_the_choices_that_it_lacks() -> None:
    lane = raced().lanes["A"]
    whole = lane_data(lane)
    assert whole["experts"] == 3
    assert whole["picks"] == lane.routing.picks
    assert whole["read"] == PROMPT["counts"]
    assert whole["dropped"] == 0.25
    assert lane_data(lane, 2)["picks"] == lane.routing.picks[1:]  # of 2 tokens the first has its choices
    assert lane_data(raced().lanes["base"])["experts"] == 0
