"""Choosing levels on the Inspect page: the slider and its frontier, chips by hand, and the race that it opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import staged
import staged_inspection
from streamlit.testing.v1 import AppTest

from backend.allocation import Frontier
from backend.catalog import model_facts, resolve
from backend.inspection import InspectedLane, InspectionView
from backend.journal import Event, Journal
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.ui.inspect import allocation
from backend.ui.inspect.allocation import (
    MOST_BITS,
    frontier_of,
    lane_raced,
    level_words,
    race_of,
    raced_words,
    switch_of,
)
from backend.ui.share import unpack

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., AppTest]


@pytest.fixture
def open_inspection(journal: Journal) -> Callable[..., AppTest]:
    """Opens a finished inspection; events of some schemes are left out on demand."""

    def open_page(without: str = "") -> AppTest:
        race = staged.race()
        number = journal.submit("race", race.model_dump(mode="json"))
        staged.play(journal, number, race)
        job = journal.submit("inspect", {"race": race.model_dump(mode="json"), "job": number})
        kept = staged_inspection.lane_events
        staged_inspection.lane_events = lambda lane: (  # type: ignore[assignment]
            [one for one in told if one[2].get("scheme") != without] for told in kept(lane)
        )
        try:
            staged_inspection.play(journal, job, number)
        finally:
            staged_inspection.lane_events = kept
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
        app.query_params["inspect"] = str(job)
        return app.switch_page("pages/inspect.py").run()

    return open_page


def shown(app: AppTest) -> str:
    return "\n".join(one.value for one in [*app.markdown, *app.caption, *app.error]).replace("\\", "")


def budget(app: AppTest) -> Any:
    return next(one for one in app.slider if one.label == "Budget, bits per weight")


def chips(app: AppTest) -> dict[str, Any]:
    return {one.label: one for one in app.button_group if one.label.startswith("layer") or one.label == "head"}


def levels(app: AppTest) -> dict[str, str]:
    return {label: one.value for label, one in chips(app).items()}


def test_the_section_opens_on_the_frontier_and_says_predicted(open_inspection: Callable[..., AppTest]) -> None:
    app = open_inspection()
    assert not app.exception
    text = shown(app)
    assert "Which level for which layer?" in text
    assert "(predicted)" in text
    assert "This mix (" in text
    assert "All int8:" in text
    assert "All int4:" in text
    assert "an assumption: race it to know" in text
    assert list(chips(app)) == [*(f"layer {n}" for n in range(8)), "head"]
    assert budget(app).value == 6.0
    assert levels(app)["layer 3"] == "int8"  # the one that suffers
    assert "int4" in levels(app).values()


def test_the_slider_moves_every_chip_along_the_frontier(open_inspection: Callable[..., AppTest]) -> None:
    app = open_inspection()
    budget(app).set_value(budget(app).min).run()
    assert not app.exception
    assert set(levels(app).values()) == {"int4"}
    budget(app).set_value(8.1).run()
    assert set(levels(app).values()) == {"int8"}
    budget(app).set_value(budget(app).max).run()
    assert "keep" in levels(app).values()
    assert budget(app).max <= MOST_BITS


def test_a_chip_changed_by_hand_is_reckoned_anew(open_inspection: Callable[..., AppTest]) -> None:
    app = open_inspection()
    before = shown(app)
    chips(app)["layer 3"].set_value("int4").run()
    assert not app.exception
    after = shown(app)
    assert levels(app)["layer 3"] == "int4"
    assert budget(app).value == 6.0
    assert before != after
    assert "KLD 0.4" in after  # layer 3 in int4 alone costs .4
    assert "The best mix that is no larger" in after
    assert "The best mix that is no larger" not in before


def test_race_this_opens_the_bench_with_it(open_inspection: Callable[..., AppTest], journal: Journal) -> None:
    app = open_inspection()
    chips(app)["head"].set_value("keep").run()
    wanted = levels(app)
    next(one for one in app.button if one.label == "Race this").click().run()
    assert not app.exception
    packed = app.query_params["race"]
    race = unpack(packed if isinstance(packed, str) else packed[0])
    assert race.baseline == staged.race().baseline
    assert (race.model, race.prompt) == (staged.race().model, staged.race().prompt)
    first, second = race.variants
    assert list(second.switches) == ["int8_weight_only"]
    asked = first.switches["mixed_precision"].by_unit(8)  # type: ignore[attr-defined]
    assert asked == {label.removeprefix("layer "): level for label, level in wanted.items()}
    next(one for one in app.button if one.label == "Race").click().run()
    assert not app.exception
    assert Race.read(journal.jobs(kind="race")[0].spec) == race


def test_the_bench_shows_the_switch_its_hint_and_its_mistakes(open_bench: Open) -> None:
    app = open_bench()
    menu = next(one for one in app.sidebar.selectbox if one.label == "Precision")
    menu.set_value("mixed_precision").run()
    assert not app.exception
    field = next(one for one in app.sidebar.text_input if one.label == "levels")
    assert field.placeholder == "0-3:int4 7:keep head:int8"
    captions = "\n".join(one.value for one in app.sidebar.caption).replace("\\", "")
    assert "Inspect, tab Sensitivity, finds the levels" in captions
    field.set_value("0-3:int4 50:int4").run()
    captions = "\n".join(one.value for one in app.sidebar.caption).replace("\\", "")
    assert "there is no layer 50" in captions
    next(one for one in app.sidebar.text_input if one.label == "levels").set_value("0-3:int5").run()
    assert "one of the levels int4, split, int8, keep" in app.error[0].value.replace("\\", "")
    next(one for one in app.sidebar.text_input if one.label == "levels").set_value("0-3:int4").run()
    assert not app.error


def test_an_inspection_without_int8_asks_for_another(open_inspection: Callable[..., AppTest]) -> None:
    app = open_inspection(without="int8")
    assert not app.exception
    assert "this inspection holds nothing of int8 weights; press Inspect to look again" in shown(app)
    assert not chips(app)


def lane() -> InspectedLane:
    view = InspectionView()
    events = [one for told in staged_inspection.lane_events("base") for one in told]
    view.apply_all(Event(number, 1, 0.0, kind, name, data) for number, (kind, name, data) in enumerate(events))
    return view.lanes["base"]


def storyteller_front(found: InspectedLane, baseline: Recipe | None = None) -> Frontier | str:
    return frontier_of(found, model_facts(resolve("storyteller")), baseline or Recipe())


def test_a_layer_that_was_not_measured_is_said() -> None:
    found = lane()
    del found.sensitivity["int4"]["5"]
    assert storyteller_front(found) == "not every layer was quantized alone"
    found.unavailable["sensitivity"] = "its weights are random"
    assert storyteller_front(found) == "not measured: its weights are random"


@pytest.mark.parametrize("dark", [False, True])
def test_the_plot_marks_what_is_uniform_and_what_is_chosen(dark: bool) -> None:
    front = storyteller_front(lane())
    assert isinstance(front, Frontier)
    drawn = allocation.chart(front, front.at(6.0), dark).figure
    assert drawn is not None
    assert [trace.text[0] for trace in drawn.data if trace.text] == ["all int8", "all int4", "this mix"]
    line = drawn.data[0]
    assert list(line.x) == sorted(line.x)
    assert list(line.y) == sorted(line.y, reverse=True)
    assert "predicted" in drawn.layout.yaxis.title.text


def test_what_is_kept_in_float_everywhere_leaves_no_mark() -> None:
    front = storyteller_front(lane())
    assert isinstance(front, Frontier)
    floats = front.uniform("keep")
    assert floats is not None
    drawn = allocation.chart(front, floats, False).figure
    assert drawn is not None
    assert "this mix" not in [trace.text[0] for trace in drawn.data if trace.text]


def test_the_switch_names_what_is_rarer() -> None:
    switch = switch_of({"0": "int8", "1": "int4", "2": "int8", "head": "int4", "3": "int8"})
    assert (switch.levels, switch.rest, switch.group_size) == ("1:int4 head:int4", "int8", 32)
    assert level_words({"0": "int8", "1": "int4", "head": "int4"}) == "1 layer and head int4, 1 layer int8"


def test_a_mix_that_was_raced_is_known_again() -> None:
    race, levels = staged.race(), {"0": "int4", "1": "int8", "head": "int8"}
    switch = switch_of(levels)
    made = race_of(race, levels).model_dump(mode="json")
    assert lane_raced(race, switch, made) == "A"
    assert lane_raced(race, switch_of({**levels, "1": "int4"}), made) is None
    assert lane_raced(race, switch, made | {"model": "gemma"}) is None
    assert lane_raced(race, switch, {}) is None
    verdict = {"kld_prefill": {"mean": 0.0912, "p99": 1.0, "tokens": 63}, "kld": None}
    assert raced_words(12, verdict) == "Race 12 tried this mix: KLD measured 0.0912 in prefill over 63 tokens."
    assert raced_words(12, {}) == ""


def test_the_page_says_what_a_race_of_this_mix_measured(
    open_inspection: Callable[..., AppTest], journal: Journal
) -> None:
    front = storyteller_front(lane())
    assert isinstance(front, Frontier)
    race = race_of(staged.race(), dict(front.at(6.0).levels))
    job = journal.submit("race", race.model_dump(mode="json"))
    staged.play(journal, job, race)
    app = open_inspection()
    assert f"Race {job} tried this mix: KLD measured" in shown(app)
    budget(app).set_value(7.0).run()
    assert "tried this mix" not in shown(app)


def test_the_baselines_other_switches_stay_in_both_variants() -> None:
    data = {"prompt": "Once", "baseline": {"switches": {"cast": {}, "static_cache": {}}}, "variants": [{}]}
    made = race_of(Race.read(data), {"0": "int4", "head": "int8"})
    assert list(made.baseline.switches) == ["cast", "static_cache"]
    assert sorted(made.variants[0].switches) == ["mixed_precision", "static_cache"]
    assert sorted(made.variants[1].switches) == ["int8_weight_only", "static_cache"]
