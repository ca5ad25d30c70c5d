"""The Bench through AppTest: the form from the schemas, the address, refusals, and what a race leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import staged
from pydantic import Field
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe import switch as switches
from backend.recipe.race import Race
from backend.recipe.switch import Group, Switch, all_switches
from backend.ui.share import pack, unpack

Open = Callable[..., AppTest]


def button(app: AppTest, label: str) -> Any:
    return next(one for one in app.button if one.label == label)


def captions(app: AppTest) -> str:
    return "\n".join(one.value for one in [*app.caption, *app.sidebar.caption]).replace("\\", "")


def errors(app: AppTest) -> str:
    return "\n".join(one.value for one in app.error).replace("\\", "")


def test_it_opens_ready_to_race(open_bench: Open, journal: Journal) -> None:
    app = open_bench()
    assert not app.exception
    assert not app.error
    button(app, "Race").click().run()
    [job] = journal.jobs(kind="race")
    race = Race.read(job.spec)
    assert race.model == "storyteller"
    assert race.variants[0].get("int8_weight_only")
    assert race.variants[0].get("draft_model")
    assert app.query_params["job"] == str(job.id)
    assert button(app, "Race").disabled
    button(app, "Cancel").click().run()
    assert journal.jobs(kind="race")[0].state == "cancelled"


def test_every_switch_stands_in_the_form(open_bench: Open) -> None:
    app = open_bench()
    toggles = "\n".join(one.label for one in app.sidebar.toggle)
    menus = {option for one in app.sidebar.selectbox for option in one.options}
    for cls in all_switches().values():
        shown = cls.title in menus or cls.title in toggles.replace("\\", "") or cls.title in captions(app)
        assert shown, f"{cls.kind} is missing"


def test_a_new_switch_appears_by_itself(open_bench: Open, monkeypatch: pytest.MonkeyPatch, journal: Journal) -> None:
    known = dict(switches._SWITCHES)
    monkeypatch.setattr(switches, "_SWITCHES", known)

    class Whistle(Switch):
        kind: ClassVar[str] = "whistle"
        group: ClassVar[Group] = Group.RUNTIME
        order: ClassVar[int] = 650
        title: ClassVar[str] = "Whistle"
        summary: ClassVar[str] = "Whistles while it works."
        loudness: int = Field(3, ge=1, le=9, description="how loud")

    all_switches.cache_clear()
    try:
        app = open_bench()
        toggle = next(one for one in app.sidebar.toggle if one.label.startswith("Whistle"))
        toggle.set_value(True).run()
        slider = next(one for one in app.sidebar.slider if one.label == "loudness")
        assert (slider.min, slider.max) == (1, 9)
        slider.set_value(7).run()
        button(app, "Race").click().run()
        [job] = journal.jobs(kind="race")
        assert job.spec["variants"][0]["switches"]["whistle"] == {"loudness": 7}
    finally:
        monkeypatch.undo()
        all_switches.cache_clear()


def test_the_address_alone_restores_the_form(open_bench: Open) -> None:
    race = staged.race(77).model_copy(update={"prompt": "Ünïcode <b>&</b>", "seed": 12})
    app = open_bench(race=pack(race))
    assert not app.exception
    button(app, "Share this setting").click().run()
    assert unpack(app.query_params["race"]) == race
    assert any("?race=" in one.value for one in app.code)


def test_a_broken_link_becomes_a_card(open_bench: Open) -> None:
    app = open_bench(race="no-race")
    assert not app.exception
    assert "a link that Share made" in errors(app)
    assert button(app, "Race")


def test_an_unknown_preset_becomes_a_card(open_bench: Open) -> None:
    app = open_bench(preset="nothing-of-that-name")
    assert "nothing-of-that-name" in errors(app)
    assert "Correct the preset's name" in errors(app)


def test_impossible_switches_are_off_and_say_why(open_bench: Open) -> None:
    app = open_bench()
    text = captions(app)
    assert "Static cache. Rejected drafts are cut from the cache" in text
    cache = next(one for one in app.sidebar.selectbox if one.label == "Cache")
    assert "Static cache" not in cache.options
    next(one for one in app.sidebar.selectbox if one.label == "Draft").set_value("").run()
    cache = next(one for one in app.sidebar.selectbox if one.label == "Cache")
    assert "Static cache" in cache.options


def test_neighbours_that_one_reason_keeps_off_share_its_line(open_bench: Open) -> None:
    said = [one.value for one in open_bench().sidebar.caption if "mixture of experts" in one.value]
    assert len(said) == 2  # one below the switches of experts, one below the menu of precisions
    assert any(line.startswith("These 4 are not here. A mixture of experts") for line in said)


def test_a_pair_that_clashes_is_refused_before_anything_loads(open_bench: Open, journal: Journal) -> None:
    app = open_bench()
    next(one for one in app.sidebar.toggle if one.label.startswith("Attention heads")).set_value(True).run()
    heads = next(one for one in app.sidebar.toggle if one.label.startswith("Key\\-value heads"))
    assert heads.disabled
    assert "pool or prune, not both" in captions(app)


def test_an_empty_prompt_gets_a_card_and_no_race(open_bench: Open, journal: Journal) -> None:
    app = open_bench()
    app.text_area[0].set_value("  ").run()
    button(app, "Race").click().run()
    assert "Field: **prompt**" in errors(app)
    assert "Write a prompt or pick one of the examples" in errors(app)
    assert journal.jobs() == []


def test_an_unknown_model_gets_a_card(open_bench: Open, journal: Journal) -> None:
    race = staged.race().model_copy(update={"model": "no-such-model"})
    app = open_bench(race=pack(race))
    assert "no-such-model" in errors(app)
    button(app, "Race").click().run()
    assert journal.jobs() == []


def test_variants_are_added_removed_and_reset(open_bench: Open) -> None:
    app = open_bench()
    button(app, "Add").click().run()
    assert app.session_state["sheet"]["lanes"] == ["base", "A", "B"]
    assert app.session_state["sheet"]["B.precision"] == "int8_weight_only"
    button(app, "Reset").click().run()
    assert app.session_state["sheet"]["B.precision"] == ""
    assert app.session_state["sheet"]["A.precision"] == "int8_weight_only"
    button(app, "Remove").click().run()
    assert app.session_state["sheet"]["lanes"] == ["base", "A"]
    assert not app.exception


def test_without_a_worker_the_page_says_how_to_start_one(open_bench: Open, journal: Journal) -> None:
    journal.leave("a worker")
    app = open_bench()
    assert any("make run" in one.value for one in app.warning)
