"""Choosing heads and layers on the Inspect page: by rank, by click, by number, and the race that it opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import staged
import staged_inspection
import torch
from streamlit.testing.v1 import AppTest

from backend.inspection import InspectedLane, InspectionView
from backend.journal import Event, Journal
from backend.recipe.base import RecipeError
from backend.recipe.switches.layers import DropLayers
from backend.recipe.switches.pruning import PruneHeads
from backend.techniques.prune.select import lost_globally, marked, stay
from backend.ui.inspect import cuts, rankplot
from backend.ui.share import unpack

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., AppTest]


@pytest.fixture
def open_inspection(journal: Journal) -> Open:
    """Opens a finished inspection, with or without its rankings."""

    def open_page(ranked: bool = True) -> AppTest:
        race = staged.race()
        number = journal.submit("race", race.model_dump(mode="json"))
        staged.play(journal, number, race)
        job = journal.submit("inspect", {"race": race.model_dump(mode="json"), "job": number})
        kept = staged_inspection.rankings
        try:
            if not ranked:
                staged_inspection.rankings = lambda: iter(())
            staged_inspection.play(journal, job, number)
        finally:
            staged_inspection.rankings = kept
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
        app.query_params["inspect"] = str(job)
        return app.switch_page("pages/inspect.py").run()

    return open_page


def shown(app: AppTest) -> str:
    return "\n".join(one.value for one in [*app.markdown, *app.caption, *app.error]).replace("\\", "")


def text(app: AppTest, label: str) -> Any:
    return next(one for one in app.text_input if one.label == label)


def race_buttons(app: AppTest) -> list[Any]:
    return [one for one in app.button if one.label.startswith("Race without these")]


def test_the_tab_shows_both_parts_and_what_goes(open_inspection: Open) -> None:
    app = open_inspection()
    assert not app.exception
    told = shown(app)
    assert "Which heads can go?" in told
    assert "Which layers can go?" in told
    assert "least head 5 of layer 2, 0.0100" in told
    assert "16 of 64 heads go: 0 by hand, 16 by rank; 0 kept by hand." in told
    assert "least layer 6, 0.180" in told
    assert "1 of 8 layers go" in told


def test_what_is_typed_is_counted_and_a_mistake_is_a_card(open_inspection: Open) -> None:
    app = open_inspection()
    text(app, "Remove heads").set_value("0:0-2 7:7").run()
    text(app, "Keep heads").set_value("2:5").run()
    assert not app.exception
    assert "17 of 64 heads go: 4 by hand, 13 by rank; 1 kept by hand." in shown(app)
    text(app, "Remove heads").set_value("0:0-2 2:5").run()
    assert "2:5 in remove and in keep" in shown(app)
    assert len(race_buttons(app)) == 1  # that of the layers
    text(app, "Remove heads").set_value("nonsense").run()
    assert not app.exception
    assert "entries LAYER:HEADS" in shown(app)


def test_race_this_opens_the_bench_with_the_choice_and_chance(open_inspection: Open) -> None:
    app = open_inspection()
    text(app, "Remove heads").set_value("0:1").run()
    next(one for one in app.slider if one.label == "Share that goes").set_value(0.0).run()
    race_buttons(app)[0].click().run()
    assert not app.exception
    packed = app.query_params["race"]
    race = unpack(packed if isinstance(packed, str) else packed[0])
    first, second = (recipe.switches["prune_heads"] for recipe in race.variants)
    assert (first.remove, first.ratio) == ("0:1", 0.0)  # type: ignore[attr-defined]
    assert (second.by, second.scope) == ("random", "global")  # type: ignore[attr-defined]
    assert second.lost_of_all([8] * 8) == 1  # type: ignore[attr-defined]


def test_layers_are_raced_against_as_many_at_random(open_inspection: Open) -> None:
    app = open_inspection()
    text(app, "Remove layers").set_value("3 5").run()
    race_buttons(app)[1].click().run()
    packed = app.query_params["race"]
    first, second = (
        r.switches["drop_layers"] for r in unpack(packed if isinstance(packed, str) else packed[0]).variants
    )
    assert first == DropLayers(remove="3 5")
    assert second == DropLayers(count=2, by="random")


def test_an_inspection_without_rankings_asks_for_another(open_inspection: Open) -> None:
    app = open_inspection(ranked=False)
    assert not app.exception
    assert "this inspection holds no rankings; press Inspect to look again" in shown(app)


def test_a_click_removes_then_keeps_then_leaves_it_to_its_rank() -> None:
    fields = cuts.START["heads"] | {"remove": "0:1"}
    fields = cuts.clicked("heads", fields, (0, 3))
    assert (fields["remove"], fields["keep"]) == ("0:1,3", "")
    fields = cuts.clicked("heads", fields, (0, 1))
    assert (fields["remove"], fields["keep"]) == ("0:3", "0:1")
    fields = cuts.clicked("heads", fields, (0, 1))
    assert (fields["remove"], fields["keep"]) == ("0:3", "")
    layers = cuts.clicked("layers", cuts.START["layers"], (4, 0))
    assert layers["remove"] == "4"


def lane() -> InspectedLane:
    view = InspectionView()
    events = [one for told in staged_inspection.lane_events("base") for one in told]
    view.apply_all(Event(number, 1, 0.0, kind, name, data) for number, (kind, name, data) in enumerate(events))
    return view.lanes["base"]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("names", [{}, {"remove": "0:1,3 5:0-2", "keep": "2:5 1:0"}])
def test_what_the_page_marks_is_what_the_technique_takes(scope: str, names: dict[str, str]) -> None:
    scores = torch.rand(6, 8, generator=torch.Generator().manual_seed(2)).tolist()
    switch = PruneHeads(ratio=0.4, scope=scope, **names)
    seen = cuts.states(switch, scores)
    ranked = marked([torch.tensor(row) for row in scores], switch.removed, switch.kept)
    lost = switch.lost([8] * 6) if scope == "layer" else lost_globally(ranked, switch.lost_of_all([8] * 6))
    stays = {(n, int(u)) for n, row in enumerate(ranked) for u in stay(row, lost[n])}
    assert {unit for unit, state in seen.items() if state in (cuts.FREE, cuts.KEPT)} == stays


@pytest.mark.parametrize("dark", [False, True])
def test_every_unit_is_a_point_that_can_be_clicked(dark: bool) -> None:
    found = lane()
    fields = cuts.START["heads"] | {"remove": "0:0", "keep": "1:1"}
    drawn = rankplot.chart(found, "heads", fields, cuts.switch_of("heads", fields), dark).figure
    assert drawn is not None
    points = drawn.data[1]
    assert [list(point[:2]) for point in points.customdata] == [[n, u] for n in range(8) for u in range(8)]
    assert points.customdata[0][2] == "removed by hand"
    assert points.marker.symbol[9] == "circle-open"
    bars = rankplot.chart(found, "layers", cuts.START["layers"], DropLayers(), dark).figure
    assert bars is not None
    assert list(bars.data[0].text) == ["", "", "", "", "", "", "goes", ""]


def test_ties_and_blocks_are_said() -> None:
    found = lane()
    found.rankings["heads"]["output"]["scores"] = [[1.0] * 8] * 8
    assert "decided by index" in rankplot.chart(found, "heads", cuts.START["heads"], PruneHeads(), False).summary
    fields = cuts.START["layers"] | {"count": 2, "pattern": "block"}
    assert "measured when it is done" in rankplot.chart(found, "layers", fields, DropLayers.read(fields), False).summary


def test_a_choice_that_does_not_fit_the_baseline_is_a_mistake() -> None:
    race = staged.race().model_copy(update={})
    data = race.model_dump(mode="json") | {"baseline": {"switches": {"kv_heads": {"count": 2}}}}
    with pytest.raises(RecipeError, match="pool or prune"):
        cuts.race_of(type(race).read(data), "heads", PruneHeads(), 8, 8)
    data["baseline"] = {"switches": {"prune_heads": {}}}
    with pytest.raises(RecipeError, match="has not lost any"):
        cuts.race_of(type(race).read(data), "heads", PruneHeads(), 8, 8)
