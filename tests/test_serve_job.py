"""Servings through a real worker, real lanes and a real journal, on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.recipe.serving import Targets
from backend.serving.view import ServingView
from tests.works import Works

LOAD = {"requests": 9, "burst": 9, "prompt_min": 4, "prompt_max": 12, "output_min": 8, "output_max": 20}


class Servings(Works[ServingView]):
    view = ServingView

    def submit(self, model: Path | str, **fields: Any) -> int:
        return self.journal.submit("serve", {"model": str(model), "load": LOAD} | fields)


@pytest.fixture(scope="module")
def works(tmp_path_factory) -> Iterator[Servings]:
    works = Servings(tmp_path_factory.mktemp("serve-home"))
    yield works
    works.stop()


def test_the_same_load_is_served_by_every_lane_and_judged(works: Servings, tiny_folder: Path) -> None:
    few = {"slots": 4, "block_tokens": 4, "blocks": 9}
    variants = [{"limits": few}, {"recipe": {"switches": {"int8_weight_only": {}}}}]
    view = works.wait(works.submit(tiny_folder, variants=variants))
    assert view.state == "finished", view.card
    base, a, b = (view.lanes[name] for name in ("base", "A", "B"))
    assert base.arrived == a.arrived == b.arrived
    for lane in (base, a, b):
        assert sorted(one.id for one in lane.ended) == list(range(9))
        assert all(one["same"] for one in lane.alone), lane.alone
        assert len(lane.alone) == 4
        assert lane.samples[-1][4] == 0, "every block came back"
    assert a.stats["preemptions"] > 0
    assert len(a.spans) > 9
    assert b.ready["receipt"]["effects"][0]["took_effect"] is True
    assert view.verdict["ratio"]["A"]["tokens_per_s"] > 0


def test_a_closed_loop_and_a_trace(works: Servings, tiny_folder: Path, tmp_path: Path) -> None:
    closed = works.wait(works.submit(tiny_folder, load=LOAD | {"arrivals": "closed", "clients": 2}, check_alone=0))
    assert max(sample[1] + sample[2] for sample in closed.lanes["A"].samples) <= 2
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n5,4,3\n3600,8,2\n")
    asked = works.submit(tiny_folder, load={"arrivals": "trace", "trace": str(trace)}, check_alone=0)
    lane = works.wait(asked).lanes["A"]
    assert lane.arrived == [[0, 0.0, 4, 3], [1, 3595.0, 8, 2]]
    assert lane.clock > 3595, "the clock jumps over the time in which nobody asks"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"load": LOAD | {"output_max": 10_000}}, "the context of"),
        ({"variants": [{"recipe": {"switches": {"prompt_lookup": {}}}}]}, "its own number of guesses"),
        ({"load": {"arrivals": "trace", "trace": "/no/such.csv"}}, "a text file that can be read"),
        ({"variants": [{"limits": {"blocks": 1}}]}, "A.limits.blocks"),
    ],
)
def test_what_cannot_be_served_says_why(works: Servings, tiny_folder: Path, fields: dict[str, Any], words: str) -> None:
    view = works.wait(works.submit(tiny_folder, **fields))
    told = [view.card, *(lane.failure for lane in view.lanes.values())]
    assert any(words in str(one) for one in told), told


def test_prompts_that_begin_alike_are_copied_where_prefixes_are_kept(works: Servings, tiny_folder: Path) -> None:
    kept = {"slots": 3, "block_tokens": 4, "prefix_blocks": 16}
    asked = works.submit(tiny_folder, load=LOAD | {"shared_prefix": 24}, variants=[{"limits": kept}])
    view = works.wait(asked)
    assert view.state == "finished", view.card
    base, a = view.lanes["base"], view.lanes["A"]
    assert base.arrived == a.arrived
    assert min(one[2] for one in a.arrived) >= 28
    assert all(one["same"] for one in a.alone), a.alone
    assert a.figures(Targets())["prefix_hit_rate"] > 0.3
    assert "prefix_hit_rate" not in base.figures(Targets())
