"""Pruning step by step on the Inspect page: asked, running, ended, cancelled, and the race of what it found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import staged
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.switches.layers import DropLayers
from backend.recipe.switches.pruning import PruneHeads, PruneNeurons
from backend.recipe.thinning import Thinning
from backend.thinned import ThinnedLane
from backend.ui.inspect import thincurve
from backend.ui.share import unpack

ROOT = Path(__file__).resolve().parents[2]
START = {"units": 64, "layers": 8, "tokens": 128, "parameters": 25_700_000, "bytes": 102_800_000}


def a_step(left: int, kld: float, removed: str = "") -> dict[str, Any]:
    size = {"parameters": 400_000 * left, "bytes": 1_600_000 * left}
    return {"left": left, "removed": removed, "kld": kld, "top1": 1 - kld, "perplexity_ratio": 1 + kld, **size}


STEPS = [a_step(61, 0.02, "0:1 2:0-1"), a_step(58, 0.08, "0:1-3 2:0-1 7:7"), a_step(55, 0.3, "0:1-6 2:0-1 7:7")]


def thinned(journal: Journal, inspection: int, state: str = "finished", steps: int = 3, **fields: Any) -> int:
    """A thinning that never ran."""
    race = staged.race().model_dump(mode="json")
    asked = Thinning.read({"race": race, "job": inspection, **fields})
    job = journal.submit("thin", asked.model_dump(mode="json"))
    journal.claim("a worker", "thin")
    journal.append(job, [("opened", None, {"lanes": {"base": "unchanged"}, "model": "storyteller"})])
    phase = {"name": "pruning and measuring", "done": 3.0, "total": 12.0, "eta_s": 40.0, "text": "58 of 64 heads left"}
    journal.append(job, [("phase", "base", phase), ("thin_start", "base", START)])
    journal.append(job, [("thinned", "base", step) for step in STEPS[:steps]])
    if state == "finished":
        journal.append(job, [("thin_stopped", "base", {"reason": "the quality budget of 0.1 nats is spent"})])
    if state != "running":
        journal.append(job, [(state, None, {"wall_s": 30.0})])
        journal.finish(job, state)
    return job


def shown(app: AppTest) -> str:
    return "\n".join(one.value for one in [*app.markdown, *app.caption, *app.error]).replace("\\", "")


def button(app: AppTest, label: str) -> Any:
    return next(one for one in app.button if one.label == label)


def test_it_is_asked_for_with_its_budget(open_page: Callable[[], AppTest], journal: Journal, inspection: int) -> None:
    app = open_page()
    assert not app.exception
    assert "before the quality budget is spent?" in shown(app)
    next(one for one in app.selectbox if one.label == "What goes").set_value("layers").run()
    next(one for one in app.number_input if one.label.startswith("Budget, KLD")).set_value(0.5).run()
    button(app, "Prune step by step").click().run()
    assert not app.exception
    [job] = journal.jobs(kind="thin")
    asked = Thinning.read(job.spec)
    assert (asked.part, asked.by, asked.kld, asked.job) == ("layers", "cosine", 0.5, inspection)
    assert button(app, "Prune step by step").disabled


def test_while_it_runs_the_curve_fills_and_it_can_be_cancelled(
    open_page: Callable[[], AppTest], journal: Journal, inspection: int
) -> None:
    job = thinned(journal, inspection, "running", steps=2)
    app = open_page()
    assert not app.exception
    told = str(app.get("progress")[0].proto).replace("\\", "")
    assert "pruning and measuring, 58 of 64 heads left, 25%, 40 s left, estimated" in told
    assert "58 of 64 heads left, 92.8 MB" in shown(app)
    button(app, "Cancel").click().run()
    assert journal.cancelled(job)


def test_what_kept_the_budget_is_raced(open_page: Callable[[], AppTest], journal: Journal, inspection: int) -> None:
    thinned(journal, inspection)
    app = open_page()
    text = shown(app)
    assert "Within 0.100 nats: 58 of 64 heads left" in text
    assert "The step after it: 55 of 64 heads left" in text
    assert "It ended because the quality budget of 0.1 nats is spent." in text
    button(app, "Race what kept the budget").click().run()
    assert not app.exception
    packed = app.query_params["race"]
    race = unpack(packed if isinstance(packed, str) else packed[0])
    first, second = (recipe.switches["prune_heads"] for recipe in race.variants)
    assert first == PruneHeads(ratio=0.0, remove="0:1-3 2:0-1 7:7")
    assert second == PruneHeads(ratio=6 / 64, scope="global")


def test_a_cancelled_one_keeps_what_it_found(
    open_page: Callable[[], AppTest], journal: Journal, inspection: int
) -> None:
    thinned(journal, inspection, "cancelled", steps=1)
    assert "Cancelled. What was found until then stands below" in shown(open_page())


def asked(part: str, by: str) -> Thinning:
    return Thinning.read({"race": staged.race().model_dump(mode="json"), "part": part, "by": by})


def test_layers_and_neurons_become_switches_too() -> None:
    lane = ThinnedLane("base", start=START | {"units": 8})
    first, second = thincurve.pair_of({"left": 6, "removed": "3 5"}, lane, asked("layers", "angular"))
    assert (first, second) == (DropLayers(count=2, remove="3 5"), DropLayers(count=2, by="angular"))
    lane.start["units"] = 1000
    first, second = thincurve.pair_of({"left": 900, "removed": ""}, lane, asked("neurons", "taylor"))
    assert first == PruneNeurons(ratio=0.1, by="taylor", scope="global")
    assert second == PruneNeurons(ratio=0.1, by="random", scope="global")


@pytest.mark.parametrize("dark", [False, True])
def test_the_curve_begins_at_the_whole_model(dark: bool) -> None:
    lane = ThinnedLane("base", start=START, steps=list(STEPS))
    drawn = thincurve.chart(lane, asked("heads", "output"), dark).figure
    assert drawn is not None
    assert list(drawn.data[0].y) == [0.0, 0.02, 0.08, 0.3]
    assert next(iter(drawn.data[0].x)) == pytest.approx(102.8)
    assert thincurve.chart(ThinnedLane("base"), asked("heads", "output"), dark).figure is None
    over = ThinnedLane("base", start=START, steps=[STEPS[2]])
    assert "Not even the first step" in thincurve.words(over, asked("heads", "output"))
