"""The inspection's view, what it derives, and the roofline's judgement: pure functions of events."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.inspection import InspectionView, explain_peak, unpack_map
from backend.journal import Event, Journal
from backend.recipe.base import RecipeError
from backend.recipe.inspection import Inspection
from backend.roofline import Point, points, shares
from backend.traces import read_trace, tidy_traces, trace_name, traces_folder

TIMELINE: dict[str, Any] = {
    "phases": [
        {"name": "load", "start_s": 0.0, "end_s": 1.0, "peak_bytes": 150},
        {"name": "transform", "start_s": 1.0, "end_s": 1.1, "peak_bytes": 120},
        {"name": "decode", "start_s": 1.1, "end_s": 2.0, "peak_bytes": 90},
    ],
    "at_s": [0.1, 1.0],
    "resident_bytes": [100, 150],
    "weights_loaded": {"embed": 60, "feed_forward": 40},
    "weights": {"embed": 60, "feed_forward": 10},
    "kv_bytes": 5,
    "logits_bytes": 1,
}
STORY: list[tuple[str, str | None, dict[str, Any]]] = [
    ("opened", None, {"lanes": {"base": "unchanged", "A": "int8"}, "job": 3, "model": "m"}),
    ("phase", "base", {"name": "loading", "done": 0, "total": 9, "eta_s": None, "text": ""}),
    ("timeline", "base", TIMELINE),
    ("machine", "base", {"read_bytes_per_s": 1e9, "copy_bytes_per_s": 2e9, "flops_per_s": {"float32": 1e10}}),
    ("operators", "base", {"shape": "decode", "rows": [["aten::mm", 4, 0.1, 0.2]]}),
    ("operators", "base", {"shape": "prefill", "rows": []}),
    ("head_gradients", "base", {"gradients": [[1.0, 3.0]], "tokens": 64}),
    ("head_gradients", "base", {"gradients": [[3.0, 5.0]], "tokens": 64}),
    ("sensitivity", "base", {"scheme": "int4", "unit": "0", "kld": 0.1}),
    ("sensitivity", "base", {"scheme": "int4", "unit": "head", "kld": 0.2}),
    ("unavailable", "A", {"section": "importance", "reason": "packed"}),
    ("inspected", "base", {"label": "unchanged"}),
    ("lane_failed", "A", {"cause": "killed", "detail": "signal 9", "remedy": "Again."}),
    ("finished", None, {"wall_s": 9.0}),
]


def events(story: list[tuple[str, str | None, dict[str, Any]]]) -> list[Event]:
    return [Event(number, 1, 0.0, kind, lane, data) for number, (kind, lane, data) in enumerate(story, 1)]


def test_events_fold_into_what_is_shown() -> None:
    view = InspectionView().apply_all(events(STORY))
    base, other = view.lanes["base"], view.lanes["A"]
    assert (view.state, view.wall_s, view.opened["job"]) == ("finished", 9.0, 3)
    assert base.done
    assert not other.done
    assert base.importance == [[2.0, 4.0]]
    assert base.peak == TIMELINE["phases"][0]
    assert list(base.sensitivity["int4"]) == ["0", "head"]
    assert set(base.operators) == {"decode", "prefill"}
    assert other.unavailable == {"importance": "packed"}
    assert other.failure is not None
    assert base.failure is None


@given(st.integers(0, len(STORY)))
@settings(deadline=None)
def test_reading_in_pieces_is_reading_at_once(cut: int) -> None:
    told = events(STORY)
    assert InspectionView().apply_all(told[:cut]).apply_all(told[cut:]) == InspectionView().apply_all(told)


def test_kinds_of_a_newer_worker_are_left_alone() -> None:
    view = InspectionView().apply_all(events([*STORY, ("thoughts", "A", {})]))
    assert view.state == "finished"


def test_a_peak_while_loading_is_explained_by_the_weights_as_loaded() -> None:
    assert explain_peak(TIMELINE) == {"embed weights": 60, "feed_forward weights": 40, "not explained": 50}


def test_a_peak_while_decoding_counts_the_cache() -> None:
    late = TIMELINE | {"phases": TIMELINE["phases"][2:]}
    found = explain_peak(late)
    assert list(found) == ["embed weights", "feed_forward weights", "KV cache", "logits", "not explained"]
    assert sum(found.values()) == 90


def test_maps_unpack_to_what_was_packed() -> None:
    steps = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    packed = base64.b64encode(zlib.compress(steps.tobytes())).decode()
    assert np.array_equal(unpack_map({"heads": 2, "tokens": 3, "packed": packed}) * 255, steps)


MACHINE = {"read_bytes_per_s": 1e9, "copy_bytes_per_s": 0.5e9, "flops_per_s": {"float32": 1e10, "bfloat16": 4e10}}


def times(spent_s: float, moved: float, flops: float, dtype: str = "float32") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "decode": {"parts": {"head": spent_s, "python": 0.001}},
        "work": {"decode": {"head": {"bytes": moved, "flops": flops}}},
    }


@pytest.mark.parametrize(
    ("spent_s", "moved", "flops", "bound"),
    [
        (1.0, 0.9e9, 1e8, "memory"),
        (1.0, 1e8, 0.9e10, "compute"),
        (1.0, 1e8, 1e9, "overhead"),
        (0.5, 0.9e9, 1e8, "memory"),  # faster than memory: out of a cache
    ],
)
def test_what_explains_most_of_a_time_bounds_it(spent_s: float, moved: float, flops: float, bound: str) -> None:
    [point] = points("base", "decode", times(spent_s, moved, flops), MACHINE)
    assert point.bound == bound
    assert point.intensity == pytest.approx(flops / moved)


def test_the_peak_is_that_of_the_number_type() -> None:
    [narrow] = points("base", "decode", times(1.0, 1e8, 0.9e10, "bfloat16"), MACHINE)
    assert narrow.bound == "overhead"  # a quarter of what bf16 reaches
    [unknown] = points("base", "decode", times(1.0, 1e8, 0.9e10, "float64"), MACHINE)
    assert unknown.bound == "compute"


@given(st.lists(st.tuples(st.floats(1e-6, 1), st.floats(0, 1e10), st.floats(0, 1e11)), min_size=1, max_size=8))
@settings(deadline=None)
def test_shares_sum_to_one(parts: list[tuple[float, float, float]]) -> None:
    made = [Point("base", "decode", "x", t, b, f, b / 1e9, f / 1e10) for t, b, f in parts]
    whole = 1.25 * sum(point.spent_s for point in made)
    assert sum(shares(made, whole).values()) == pytest.approx(1)


def test_only_traces_are_read_and_the_oldest_go(home: Path) -> None:
    for job in range(4):
        (traces_folder() / trace_name(job, "base", "decode")).write_bytes(b"x")
    (home / "secret").write_text("no")
    assert read_trace("inspect-1-base-decode.json.gz") == b"x"
    assert read_trace("../secret") is None
    assert read_trace("inspect-9-base-decode.json.gz") is None
    tidy_traces(kept=1)
    assert len(list(traces_folder().iterdir())) == 1


def test_an_order_names_its_mistakes() -> None:
    asked = Inspection.read({"race": {"prompt": "Once", "variants": [{}]}, "job": 4})
    assert asked.race.model == "storyteller"
    with pytest.raises(RecipeError) as caught:
        Inspection.read({"race": {"prompt": " ", "variants": [{}]}})
    assert caught.value.field == "prompt"
    with pytest.raises(RecipeError):
        Inspection.read({"race": {"prompt": "Once", "variants": [{}]}, "depth": 3})


def test_races_and_inspections_wait_in_one_queue(home: Path) -> None:
    with Journal() as journal:
        first = journal.submit("race", {})
        second = journal.submit("inspect", {})
        third = journal.submit("race", {})
        gemma = journal.submit("gemma", {})
        assert [journal.place(job) for job in (first, second, third, gemma)] == [0, 1, 2, 0]
        assert [journal.claim("w", "race", "inspect").id for _ in range(3)] == [first, second, third]
        assert journal.claim("w", "race", "inspect") is None
