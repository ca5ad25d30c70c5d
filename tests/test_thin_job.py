"""Thinning through a real worker: a curve that fills, a stop at the budget, a cancel that keeps what was found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.thinned import ThinningView
from tests.works import Works


class Thinnings(Works[ThinningView]):
    view = ThinningView

    def submit(self, model: Path | str, **fields: Any) -> int:
        race = {"model": str(model), "prompt": "Once there was a lantern", "variants": [{}]}
        return self.journal.submit("thin", {"race": race, **fields} | {"race": race | fields.get("race", {})})


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thinnings]:
    works = Thinnings(tmp_path_factory.mktemp("thin-home"))
    yield works
    works.stop()


def test_heads_go_one_by_one_until_the_most_and_what_went_can_be_named(works: Thinnings, tiny_folder: Path) -> None:
    job = works.submit(tiny_folder, part="heads", step=0.125, most=0.5, kld=100.0)
    view = works.wait(job)
    assert view.state == "finished", view.card
    lane = view.lanes["base"]
    assert lane.start["units"] == 8
    assert [step["left"] for step in lane.steps] == [7, 6, 5, 4]
    sizes = [lane.start["bytes"], *(step["bytes"] for step in lane.steps)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 5
    assert "50% have gone" in lane.stopped
    assert lane.within(100.0) == lane.steps[-1]
    told = [event.data for event in works.journal.events(job) if event.kind == "phase"]
    done = [phase["done"] for phase in told]
    assert done == sorted(done)
    # The same heads named in one recipe are the same model.
    from backend.catalog import resolve
    from backend.engine.load import load
    from backend.engine.memory import module_parameters
    from backend.recipe.switches.pruning import PruneHeads
    from backend.techniques.registry import apply_switch

    subject = load(resolve(str(tiny_folder)), device="cpu")
    subject.sample_ids = list(range(1, 65))
    apply_switch(subject, PruneHeads(ratio=0.0, remove=lane.steps[-1]["removed"]))
    assert module_parameters(subject.model) == lane.steps[-1]["parameters"]


def test_it_stops_when_the_budget_is_spent(works: Thinnings, tiny_folder: Path) -> None:
    view = works.wait(works.submit(tiny_folder, part="neurons", by="random", step=0.25, most=0.9, kld=1e-6))
    lane = view.lanes["base"]
    assert len(lane.steps) == 1
    assert "quality budget of 1e-06 nats is spent" in lane.stopped
    assert lane.within(1e-6) is None


def test_layers_go_until_one_is_left(works: Thinnings, tiny_folder: Path) -> None:
    view = works.wait(works.submit(tiny_folder, part="layers", by="angular", step=0.1, most=0.9, kld=100.0))
    lane = view.lanes["base"]
    assert [step["left"] for step in lane.steps] == [1]
    assert lane.steps[0]["removed"] in ("0", "1")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"part": "layers", "by": "taylor"}, "by"),
        ({"step": 0.0}, "step"),
        ({"most": 1.0}, "most"),
        ({"kld": 0.0}, "kld"),
        ({"part": "experts"}, "part"),
        ({"race": {"prompt": "x", "baseline": {"switches": {"prune_heads": {}}}, "variants": [{}]}}, "baseline"),
    ],
)
def test_bad_orders_end_in_a_card(works: Thinnings, tiny_folder: Path, fields: dict[str, Any], field: str) -> None:
    view = works.wait(works.submit(tiny_folder, **fields))
    assert view.state == "failed"
    assert view.card is not None
    assert view.card["field"].split(".")[0] == field


def test_a_cancel_keeps_what_was_found(works: Thinnings, tiny_folder: Path) -> None:
    job = works.submit(tiny_folder, part="neurons", step=0.01, most=0.9, kld=100.0)
    works.wait(job, lambda view: bool(view.lanes.get("base") and view.lanes["base"].steps))
    works.journal.cancel(job)
    view = works.wait(job)
    assert view.state == "cancelled"
    assert view.lanes["base"].steps
    assert not works.lanes()
