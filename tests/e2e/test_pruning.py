"""Heads and layers chosen with the mouse: what is clicked in a plot stands in the fields below, and in the race."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend.journal import Journal
from tests.e2e.conftest import App, free_port, start_app
from tests.ui import staged, staged_inspection

WHERE = """(gd, at) => {
    const box = gd.getBoundingClientRect(), full = gd._fullLayout;
    return [box.x + full.xaxis._offset + full.xaxis.d2p(at[0]), box.y + full.yaxis._offset + full.yaxis.d2p(at[1])];
}"""


@pytest.fixture
def inspected(tmp_path: Path) -> Iterator[tuple[App, int]]:
    """A Headway in whose journal an inspection has ended."""
    race = staged.race().model_dump(mode="json")
    with Journal(tmp_path / "journal.sqlite") as journal:
        number = journal.submit("race", race)
        staged.play(journal, number, staged.race())
        job = journal.submit("inspect", {"race": race, "job": number})
        staged_inspection.play(journal, job, number)
    running = start_app(tmp_path, free_port(), with_models=False)
    yield running, job
    running.process.terminate()
    running.process.wait(60)


def click(page: Page, part: str, x: float, y: float) -> None:
    """Click a place of a part's plot, by the numbers on its axes, once it stands still."""
    plot = page.locator(f".st-key-inspect-plot-cut-{part} .js-plotly-plot")
    plot.scroll_into_view_if_needed()
    before, now = None, plot.evaluate(WHERE, [x, y])
    while before != now:  # what is above may still be drawn
        expect(page.locator("[data-testid=stApp]")).to_have_attribute("data-test-script-state", "notRunning")
        page.wait_for_timeout(500)
        before, now = now, plot.evaluate(WHERE, [x, y])
    page.mouse.move(*now)  # a point under the mouse is what a click chooses
    page.wait_for_timeout(200)
    page.mouse.click(*now)


def test_a_click_removes_another_keeps_and_the_bench_gets_it(
    inspected: tuple[App, int], new_page: Callable[..., Page], shoot: Callable[..., Path]
) -> None:
    app, job = inspected
    page: Page = new_page(viewport={"width": 1280, "height": 1500})
    page.goto(f"{app.url}/inspect?inspect={job}")
    expect(page.locator(".st-key-machine")).to_be_visible()  # the head, though nobody has opened the app before
    page.get_by_role("tab", name="Pruning", exact=True).click()
    remove, keep = field(page, "Remove heads"), field(page, "Keep heads")
    click(page, "heads", 4, 3)
    expect(remove).to_have_value("3:4")
    click(page, "heads", 5, 3)
    expect(remove).to_have_value("3:4-5")
    click(page, "heads", 4, 3)
    expect(remove).to_have_value("3:5")
    expect(keep).to_have_value("3:4")
    click(page, "layers", 2, 0.1)
    expect(field(page, "Remove layers")).to_have_value("2")
    expect(page.get_by_text(re.compile("1 by hand, 15 by rank; 1 kept by hand"))).to_be_visible()
    shoot(page, "inspect-pruning")
    remove.fill("0:0")  # and by the keyboard
    remove.press("Enter")
    expect(page.get_by_text(re.compile("1 by hand, 15 by rank; 1 kept by hand"))).to_be_visible()
    page.get_by_role("button", name="Race without these heads").click()
    page.wait_for_url(re.compile(r"race="))
    expect(page.get_by_label("remove", exact=True).first).to_have_value("0:0")


def field(page: Page, label: str) -> Any:
    return page.get_by_label(label, exact=True)
