"""A training in a browser: a preset with few tokens, its curves while it runs, its end, and the race that it offers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from backend.recipe.lesson import all_lessons
from backend.recipe.training import Training
from backend.ui.share import pack

END_MS = 120_000
LINES = "document.querySelectorAll('[class*=\"plot-train-Training-loss\"] .line').length"


def brief() -> str:
    """The first preset's training with few tokens and quick looks."""
    training = all_lessons()["cut-and-heal"].training.model_dump(mode="json")
    training["pace"] |= {"tokens": 8192, "batch": 4}
    training["looks"] |= {"windows": 1, "questions": 0, "every": 8}
    return pack(Training.read(training | {"name": "briefly-healed"}))


def test_a_student_is_healed_and_its_race_is_offered(bare_app: Any, page: Page, shoot: Callable[..., Path]) -> None:
    app = bare_app(OMP_NUM_THREADS="1")  # with models of its own: what is trained here must not stay
    page.goto(f"{app.url}/train")
    expect(page.get_by_text("Four of eight layers go")).to_be_visible()  # the preset of a first visit
    page.goto(f"{app.url}/train?training={brief()}")
    expect(page.get_by_label("Name of the result", exact=True)).to_have_value("briefly-healed")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_url(re.compile(r"train=\d+"))
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    page.wait_for_function(f"() => {LINES} > 0", timeout=END_MS)
    shoot(page, "training")
    expect(page.get_by_text(re.compile(r"Training \d+\. Finished"))).to_be_visible(timeout=END_MS)
    expect(page.get_by_role("heading", name=re.compile("briefly-healed: "))).to_be_visible()
    shoot(page, "trained", full_page=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON", exact=True).click()
    found = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert found["state"] == "finished"
    assert len(found["lanes"]["student"]["steps"]) == 16
    page.get_by_role("button", name="Race it", exact=True).click()
    page.wait_for_url(re.compile("race="))
    expect(page.get_by_role("button", name="Race", exact=True)).to_be_enabled()
