"""Replay: events become what a page shows, in pieces or at once, and whatever a newer worker may add."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.journal import Event
from backend.replay import RaceView

Row = tuple[str, str | None, dict[str, Any]]


def events(*rows: Row) -> list[Event]:
    return [Event(number, 1, 0.0, kind, lane, data) for number, (kind, lane, data) in enumerate(rows, 1)]


def tokens(lane: str, ids: list[int], start: int = 0) -> Row:
    clock = [0.1 * (start + i + 1) for i in range(len(ids))]
    return "tokens", lane, {"start": start, "ids": ids, "texts": [f"<{i}>" for i in ids], "clock": clock,
                            "drafted": [0] * len(ids)}  # fmt: skip


def scores(lane: str, shape: str, kld: list[float], top1: list[int]) -> Row:
    return "scores", lane, {"shape": shape, "start": 0, "kld": kld, "top1": top1, "delta_logp": [-k for k in kld]}


OPENED: Row = ("opened", None, {"versions": {}, "hardware": {}, "lanes": {"base": "unchanged", "A": "int8"}})
STORY: list[Row] = [
    OPENED,
    ("phase", "A", {"name": "loading", "done": 1, "total": 2, "eta_s": 3.0, "text": "reading"}),
    ("ready", "A", {"label": "int8 weights", "parameters": 9, "receipt": {"bits": 8}, "memory": {"weights_bytes": 5}}),
    tokens("base", [1, 2, 3]),
    tokens("A", [1, 2]),
    tokens("A", [4], start=2),
    scores("A", "decode", [0.0, 0.2, 0.4], [1, 1, 0]),
    scores("A", "prefill", [0.5], [0]),
    ("memory", "A", {"weights_bytes": 6, "kv_bytes": 1}),
    ("speculation", "A", {"drafted": 4, "accepted": 3}),
    ("perplexity", "A", {"nll_sum": 3.0, "tokens": 2}),
    ("answers", "A", {"right": 5, "asked": 6}),
    ("request", "A", {"round": 0, "ttft_s": 0.1, "emitted_s": [0.1, 0.2]}),
    ("request", "A", {"round": 1, "ttft_s": 0.1, "emitted_s": [0.1, 0.2]}),
    ("verdict", None, {"lanes": {"A": {}}}),
    ("finished", None, {"wall_s": 9.0}),
]


def test_a_race_folds_into_what_is_shown() -> None:
    view = RaceView().apply_all(events(*STORY))
    lane = view.lanes["A"]
    assert view.state == "finished"
    assert view.wall_s == 9.0
    assert view.last_id == len(STORY)
    assert view.verdict == {"lanes": {"A": {}}}
    assert lane.text == "<1><2><4>"
    assert lane.label == "int8 weights"
    assert lane.parameters == 9
    assert lane.receipt == {"bits": 8}
    assert lane.memory == {"weights_bytes": 6, "kv_bytes": 1}
    assert lane.speculation["accepted"] == 3
    assert lane.answers["right"] == 5
    assert lane.perplexity["tokens"] == 2
    assert [request["round"] for request in lane.requests] == [0, 1]
    assert view.phase["name"] == "loading"


def test_decode_and_prefill_scores_never_mix() -> None:
    lane = RaceView().apply_all(events(*STORY)).lanes["A"]
    assert abs(lane.decode.mean_kld - 0.2) < 1e-12
    assert lane.prefill.mean_kld == 0.5
    assert abs(lane.decode.agreement - 2 / 3) < 1e-12
    assert lane.prefill.agreement == 0.0


def test_speed_is_decode_on_the_lane_clock_without_prefill() -> None:
    view = RaceView().apply_all(events(OPENED, tokens("base", [1, 2, 3, 4])))
    assert abs(view.baseline.tokens_per_s - 10.0) < 1e-9
    assert abs(view.baseline.ttft_s - 0.1) < 1e-12
    assert view.lanes["A"].tokens_per_s is None
    assert view.lanes["A"].ttft_s is None
    assert view.lanes["A"].decode.mean_kld is None


def test_divergence_is_the_first_token_that_differs() -> None:
    view = RaceView().apply_all(events(OPENED, tokens("base", [1, 2, 3]), tokens("A", [1, 2])))
    assert view.divergence(view.lanes["A"]) is None
    view.apply(Event(9, 1, 0.0, *tokens("A", [5, 6], start=2)))
    assert view.divergence(view.lanes["A"]) == 2
    assert view.divergence(view.baseline) is None


@given(st.integers(0, len(STORY)))
@settings(deadline=None)
def test_a_page_that_joins_late_or_reads_in_pieces_sees_the_same(cut: int) -> None:
    story = events(*STORY)
    assert RaceView().apply_all(story[:cut]).apply_all(story[cut:]) == RaceView().apply_all(story)


def test_kinds_of_a_newer_worker_are_left_alone() -> None:
    story = events(*STORY[:4], ("thoughts", "A", {"deep": True}), ("weather", None, {}))
    assert RaceView().apply_all(story).lanes == RaceView().apply_all(story[:4]).lanes
    assert RaceView().apply_all(story).last_id == 6


def test_variants_are_all_but_the_baseline_in_order() -> None:
    lanes = {"base": "unchanged", "A": "a", "B": "b"}
    view = RaceView().apply_all(events(("opened", None, {"lanes": lanes})))
    assert [lane.name for lane in view.variants] == ["A", "B"]
    assert view.state == "running"


def test_a_failed_lane_leaves_the_others_as_they_are() -> None:
    failure = {"cause": "killed", "detail": "signal 9", "remedy": "Race again.", "phase": "racing"}
    view = RaceView().apply_all(events(OPENED, tokens("base", [1]), ("lane_failed", "A", failure)))
    assert view.lanes["A"].failure == failure
    assert view.lanes["A"].phase == "failed"
    assert view.baseline.failure is None
    assert view.state == "running"


def test_a_failed_race_shows_its_card_and_a_cancelled_one_says_so() -> None:
    card = {"field": "prompt", "value": "", "allowed": "text", "remedy": "Write."}
    failed = RaceView().apply_all(events(OPENED, ("failed", None, {"card": card})))
    assert (failed.state, failed.card) == ("failed", card)
    cancelled = RaceView().apply_all(events(OPENED, tokens("base", [1]), ("cancelled", None, {"wall_s": 2.0})))
    assert (cancelled.state, cancelled.wall_s, cancelled.baseline.ids) == ("cancelled", 2.0, [1])
