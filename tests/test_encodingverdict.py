"""The verdict on encoders: rounds are paired, warm-up is left out, and what is missing is absent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "ui"))
from staged_encoding import play, race

from backend.encodingverdict import build_verdict, encoded
from backend.encodingview import EncodingView


def test_ratios_are_paired_round_by_round() -> None:
    view = play()
    seen = encoded(view)
    assert (seen.rounds, seen.left_out) == (8, 0)
    assert seen.ratio("A", 32).ratio == pytest.approx(2.0)
    assert seen.ratio("A", 1).ratio == pytest.approx(1.25)
    verdict = build_verdict(view, race())
    at = verdict["lanes"]["A"]["sizes"]["32"]
    assert at["sentences_per_s"] == pytest.approx(32 / 0.05, rel=0.002)
    assert at["speed"]["pairs"] == 8
    assert not at["speed"]["within_noise"]
    assert verdict["lanes"]["A"]["memory"]["ratio"] == pytest.approx(1.5)
    assert "speed" not in verdict["lanes"]["base"]["sizes"]["32"]
    assert verdict["measurement"]["tokens_per_sentence"] == 12


def test_rounds_before_the_change_point_are_left_out_of_all_lanes() -> None:
    seen = encoded(play(slow_rounds=2))
    assert (seen.rounds, seen.left_out) == (8, 2)
    assert min(turn for turn, _ in seen.lanes["A"]) == 2
    assert seen.ratio("A", 32).ratio == pytest.approx(2.0)


def test_a_lost_lane_has_no_ratio_and_the_other_keeps_its_own() -> None:
    view = play(lose="B")
    verdict = build_verdict(view, race())
    assert verdict["lanes"]["B"]["failed"]
    assert "speed" not in verdict["lanes"]["B"]["sizes"]["8"]
    assert "memory" not in verdict["lanes"]["B"]
    assert verdict["lanes"]["A"]["sizes"]["8"]["speed"]["ratio"] > 1


def test_nothing_measured_is_nothing_said() -> None:
    view = play(rounds=0)
    verdict = build_verdict(view, race())
    assert verdict["notes"] == ["Speed was not measured."]
    assert verdict["lanes"]["A"]["sizes"]["1"].keys() == {"worth"}
    assert build_verdict(EncodingView(), race())["lanes"] == {}
