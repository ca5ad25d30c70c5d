"""The context sweep through a real worker: curves that fill, a cancel that keeps them, orders that end in a card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.recipe.base import RecipeError
from backend.recipe.contexts import READY, ContextSweep
from backend.swept import SweepView, attention_share, safety
from tests.works import Works

INT8 = {"switches": {"quantized_cache": {"key_bits": 8, "value_bits": 8, "group_size": 16, "recent": 16}}}
INT2 = {"switches": {"quantized_cache": {"key_bits": 2, "value_bits": 2, "group_size": 16, "recent": 16}}}


class Sweeps(Works[SweepView]):
    view = SweepView

    def submit(self, model: Path | str, **fields: Any) -> int:
        race = {"model": str(model), "prompt": "Once there was a lantern", "variants": [INT2]}
        return self.journal.submit("context", {"race": race, "longest": 256, "scored": 16, **fields})


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweeps]:
    works = Sweeps(tmp_path_factory.mktemp("context-home"))
    yield works
    works.stop()


def test_caches_are_scored_at_every_length(works: Sweeps, tiny_folder: Path) -> None:
    job = works.submit(tiny_folder, caches=[INT8, INT2, {"switches": {"static_cache": {}}}])
    view = works.wait(job)
    assert view.state == "finished", view.card or view.lanes["base"].failure
    lane = view.lanes["base"]
    assert [point["length"] for point in lane.quality] == lane.start["lengths"]
    assert lane.start["lengths"][0] == 128
    int8, int2, static = (lane.curve(number) for number in range(3))
    assert all(a["kld"] < b["kld"] for a, b in zip(int8, int2, strict=True))
    assert all(point["kld"] < 1e-5 and point["top1"] == 1.0 for point in static)
    assert all(a["kv_bytes"] > b["kv_bytes"] for a, b in zip(int8, int2, strict=True))
    assert all(full["kv_bytes"] > point["kv_bytes"] for full, point in zip(lane.quality, int8, strict=True))
    assert all(abs(full["loss"] - point["loss"]) < 1e-4 for full, point in zip(lane.quality, static, strict=True))
    assert all(full["loss"] != point["loss"] for full, point in zip(lane.quality, int2, strict=True))
    done = [event.data["done"] for event in works.journal.events(job) if event.kind == "phase"]
    assert done == sorted(done)


def test_every_lane_is_timed_at_every_length(works: Sweeps, tiny_folder: Path) -> None:
    view = works.wait(works.submit(tiny_folder, ask="speed", longest=128))
    assert view.state == "finished", view.card
    assert list(view.lanes) == ["base", "A"]
    for lane in view.lanes.values():
        (point,) = lane.speed
        assert point["step_s"] > 0
        assert point["peak_bytes"] > 0
        shares = attention_share(point)
        assert shares
        assert 0 < shares["grows"] <= shares["attention"] < 1
    base, packed = (view.lanes[name].speed[0]["kv_bytes"] for name in ("base", "A"))
    assert packed < base


def test_a_cancel_keeps_what_was_found(works: Sweeps, tiny_folder: Path) -> None:
    job = works.submit(tiny_folder, ask="speed")
    works.wait(job, lambda view: any(lane.speed for lane in view.lanes.values()))
    works.journal.cancel(job)
    view = works.wait(job)
    assert view.state == "cancelled"
    assert view.lanes["base"].speed
    assert not works.lanes()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "caches"),
        ({"caches": [{"switches": {"int8_weight_only": {}}}]}, "caches"),
        ({"caches": [{}]}, "caches"),
        ({"caches": [INT8], "longest": 4}, "longest"),
        ({"caches": [INT8], "scored": 100}, "scored"),
        ({"ask": "everything"}, "ask"),
    ],
)
def test_bad_orders_are_cards(fields: dict[str, Any], field: str) -> None:
    race = {"model": "storyteller", "prompt": "Once", "variants": [{}]}
    with pytest.raises(RecipeError) as error:
        ContextSweep.read({"race": race, **fields})
    assert error.value.field.split(".")[0] == field


def test_a_baseline_with_a_cache_of_its_own_is_refused() -> None:
    race = {"prompt": "Once", "baseline": INT8, "variants": [{}]}
    with pytest.raises(RecipeError, match="full cache"):
        ContextSweep.read({"race": race, "caches": [INT2]})
    assert ContextSweep.read({"race": race, "ask": "speed"}).race.baseline.label == "int8 cache"


def test_ready_caches_are_read() -> None:
    assert "int4 cache" in READY
    assert all(ContextSweep.read({"race": {"prompt": "Once", "variants": [{}]}, "caches": [r]}) for r in READY.values())


def point(length: int, kld: float, high: float | None = None) -> dict[str, Any]:
    return {"length": length, "kld": kld, "high": kld if high is None else high}


@pytest.mark.parametrize(
    ("curve", "safe", "mean", "broken"),
    [
        ([], None, None, None),
        ([point(128, 0.001), point(256, 0.002)], 256, 256, None),
        ([point(128, 0.001), point(256, 0.008, 0.02), point(512, 0.001)], 128, 512, None),
        ([point(128, 0.001), point(256, 0.03), point(512, 0.001)], 128, 128, 256),
        ([point(128, float("nan"))], None, None, 128),
    ],
)
def test_a_length_is_safe_only_where_all_shorter_ones_are(
    curve: list[dict[str, Any]], safe: int | None, mean: int | None, broken: int | None
) -> None:
    found = safety(curve, 0.01)
    assert (found.safe, found.mean) == (safe, mean)
    assert (found.broken or {}).get("length") == broken
