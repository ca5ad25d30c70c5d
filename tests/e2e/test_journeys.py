"""What people do with Headway, in a real browser, from the first click to the verdict."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page, expect

from backend.journal import Journal
from tests.e2e.journey import brief, press_race, view_of, wait_for_end, wait_until


def racing(app: Any, job: int) -> bool:
    base = view_of(app, job).baseline
    return bool(base and base.ids)


def lanes_of(app: Any) -> list[psutil.Process]:
    """The processes that hold models: grandchildren of the worker, through its fork server."""
    workers = [p for p in psutil.Process(app.process.pid).children() if "backend.worker" in " ".join(p.cmdline())]
    return [lane for worker in workers for server in worker.children() for lane in server.children()]


def test_the_first_race_with_no_setting_changed(app: Any, new_page: Any, shoot: Callable[..., Path]) -> None:
    page = new_page(viewport={"width": 1280, "height": 1500})
    page.goto(app.url)
    began = time.monotonic()
    job = press_race(page)
    live = page.locator("section.race[data-mode=live]")
    expect(live.locator(".pane")).to_have_count(2)
    expect(live.locator("figure[data-plot]")).to_have_count(4)
    wait_until(lambda: racing(app, job))
    shoot(page, "running")
    wait_for_end(page)
    print(f"\nfrom the click to the verdict: {time.monotonic() - began:.1f} s")
    expect(page.get_by_text(re.compile(r"A is .*x"))).to_be_visible()
    expect(page.locator("[class*='-plot-'] .js-plotly-plot")).to_have_count(4)
    view = view_of(app, job)
    assert view.lanes["A"].speculation["drafted"] > 0
    assert view.lanes["A"].receipt["effects"][0]["took_effect"] is True
    assert view.verdict["lanes"]["A"]["memory"]["ratio"] > 2
    shoot(page, "finished-race")
    for name in ("JSON", "CSV"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        assert Path(download.value.path()).stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("finished-dark", 1280, "dark"), ("finished-wide", 1920, "light"), ("finished-phone", 390, "light")],
)
def test_a_finished_race_opened_again_looks_intended(
    app: Any, new_page: Any, shoot: Callable[..., Path], name: str, width: int, scheme: str
) -> None:
    page = new_page(viewport={"width": width, "height": 1500}, color_scheme=scheme)
    page.goto(f"{app.url}/?job=1")
    wait_for_end(page)
    expect(page.locator("[class*='-plot-'] .js-plotly-plot")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), "the page overflows sideways"
    shoot(page, name)


def test_a_race_is_found_where_it_is_after_the_page_was_closed(app: Any, new_page: Any) -> None:
    first = new_page()
    first.goto(f"{app.url}/{brief('storyteller-draft')}")
    job = press_race(first)
    wait_until(lambda: racing(app, job))
    first.close()
    again = new_page()
    again.goto(f"{app.url}/?job={job}")
    wait_for_end(again)
    assert view_of(app, job).state == "finished"


def test_cancel_keeps_what_was_measured(app: Any, page: Page, shoot: Callable[..., Path]) -> None:
    page.goto(f"{app.url}/?preset=storyteller-layers")
    job = press_race(page)
    wait_until(lambda: racing(app, job))
    page.get_by_role("button", name="Cancel", exact=True).click()
    began = time.monotonic()
    wait_for_end(page, "Cancelled", timeout=30_000)
    assert time.monotonic() - began < 15
    assert view_of(app, job).baseline.ids
    shoot(page, "cancelled")


def test_two_people_at_once_each_see_their_own_and_their_place(app: Any, new_page: Any) -> None:
    first, second = new_page(), new_page()
    first.goto(f"{app.url}/{brief('storyteller-heads')}")
    second.goto(f"{app.url}/{brief('storyteller-one-thread')}")
    one, two = press_race(first), press_race(second)
    assert two > one
    expect(second.get_by_text(re.compile("1 race before yours")).first).to_be_visible()
    wait_until(lambda: racing(app, one))
    first.get_by_role("button", name="Cancel", exact=True).click()
    wait_for_end(first, "Cancelled")
    wait_for_end(second)  # which the other's end does not concern
    assert "heads" in view_of(app, one).lanes["A"].label
    assert "thread" in view_of(app, two).lanes["A"].label


def test_a_shared_address_restores_the_recipe_in_a_fresh_browser(app: Any, new_page: Any) -> None:
    first = new_page()
    first.goto(f"{app.url}/?preset=storyteller-combined")
    first.get_by_role("button", name="Share this setting").click()
    first.wait_for_url(re.compile("race="))
    second = new_page()
    second.goto(first.url)
    expect(second.get_by_role("button", name="Race", exact=True)).to_be_visible()
    job = press_race(second)
    with Journal(app.home / "journal.sqlite") as journal:
        spec = journal.job(job).spec
        journal.cancel(job)
    shipped = json.loads((Path(__file__).parents[2] / "presets/storyteller-combined.json").read_text())["race"]
    asked = [sorted(variant["switches"]) for variant in spec["variants"]]
    assert asked == [sorted(variant["switches"]) for variant in shipped["variants"]]
    assert spec["prompt"] == shipped["prompt"]


def test_a_bad_preset_becomes_a_card(app: Any, page: Page, shoot: Callable[..., Path]) -> None:
    folder = app.home / "presets"
    folder.mkdir(exist_ok=True)
    race = {"prompt": "Once", "variants": [{"switches": {"int8_weight_onyl": {}}}]}
    (folder / "bad.json").write_text(json.dumps({"title": "Bad", "look_at": "nothing", "race": race}))
    page.goto(f"{app.url}/?preset=own/bad")
    expect(page.get_by_text("int8_weight_onyl").first).to_be_visible()
    expect(page.get_by_text("What to do").first).to_be_visible()
    expect(page.get_by_role("button", name="Race", exact=True)).to_be_visible()  # the form is there all the same
    shoot(page, "bad-preset")


def test_markup_in_a_prompt_is_shown_as_text(app: Any, page: Page) -> None:
    page.goto(app.url)
    box = page.get_by_role("textbox", name="Prompt")
    box.fill("Once <b>bold</b> <img src=x onerror=\"document.title='broken'\"> there was a map")
    box.blur()
    job = press_race(page)
    wait_until(lambda: racing(app, job))
    unharmed(page)
    page.get_by_role("button", name="Cancel", exact=True).click()
    wait_for_end(page, "Cancelled")
    unharmed(page)


def unharmed(page: Page) -> None:
    expect(page.locator(".pane .text").first).not_to_be_empty()
    assert page.title() != "broken"
    assert page.locator(".pane .text b, .pane .text img").count() == 0


def test_a_killed_lane_is_a_card_and_the_others_finish(own_app: Any, page: Page, shoot: Callable[..., Path]) -> None:
    page.goto(f"{own_app.url}/{brief('storyteller-precisions')}")
    job = press_race(page)
    wait_until(lambda: racing(own_app, job))
    max(lanes_of(own_app), key=lambda process: process.pid).kill()
    wait_for_end(page)
    expect(page.get_by_text(re.compile("C failed")).first).to_be_visible()
    view = view_of(own_app, job)
    assert view.lanes["C"].failure["cause"] == "killed"
    assert "speed" in view.verdict["lanes"]["A"]
    shoot(page, "killed-lane")


def test_worker_and_pages_killed_come_back(own_app: Any, page: Page) -> None:
    page.goto(f"{own_app.url}/{brief('storyteller-draft')}")
    job = press_race(page)
    wait_until(lambda: racing(own_app, job))
    for child in psutil.Process(own_app.process.pid).children():
        child.kill()
    wait_until(lambda: view_of(own_app, job).state == "failed")
    assert view_of(own_app, job).baseline.ids  # what was written stays
    wait_until(lambda: _opens(page, f"{own_app.url}/?job={job}"))
    wait_for_end(page, "Failed")
    job = press_race(page)
    wait_until(lambda: racing(own_app, job))
    page.get_by_role("button", name="Cancel", exact=True).click()
    wait_for_end(page, "Cancelled")


def _opens(page: Page, url: str) -> bool:
    from playwright.sync_api import Error

    try:
        page.goto(url)
    except Error:
        return False
    return True


def test_history_opens_and_compares(app: Any, page: Page, shoot: Callable[..., Path]) -> None:
    page.goto(f"{app.url}/history")
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    # The table is a canvas; its cells stand in the page for screen readers, and count as hidden.
    expect(page.get_by_text(re.compile("int8 weights, draft")).first).to_be_attached()
    assert page.get_by_text("Traceback").count() == 0
    shoot(page, "history")
