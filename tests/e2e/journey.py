"""The steps that journeys through the browser share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from backend.journal import Journal
from backend.recipe.race import all_presets
from backend.replay import RaceView
from backend.ui.share import pack

RACE_MS = 240_000  # CI's machine has two cores and other work


def press_race(page: Page) -> int:
    """Press Race and return the job's number, which the address shows."""
    page.get_by_role("button", name="Race", exact=True).click()
    page.wait_for_url(re.compile(r"job=\d+"))
    return int(re.search(r"job=(\d+)", page.url).group(1))  # type: ignore[union-attr]


def brief(preset: str) -> str:
    """The part of an address that asks for a preset's race with a short measurement, where that is not the matter."""
    race = all_presets()[preset].race
    quick = {"budget_s": 3.0, "quality_tokens": 256, "questions": 6}
    return f"?race={pack(race.model_copy(update={'measure': race.measure.model_copy(update=quick)}))}"


def wait_for_end(page: Page, word: str = "Finished", timeout: int = RACE_MS) -> None:
    """Wait until the page says that the race ended so."""
    expect(page.get_by_text(re.compile(rf"Race \d+\. {word}"))).to_be_visible(timeout=timeout)


def view_of(app: Any, job: int) -> RaceView:
    """What the journal of this app holds of a race."""
    with Journal(app.home / "journal.sqlite") as journal:
        return RaceView().apply_all(journal.events(job))


def wait_until(true: Callable[[], bool], limit_s: float = 90.0) -> None:
    """Wait for what no element of the page says."""
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)
