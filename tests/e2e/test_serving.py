"""A load served in a browser: chosen, followed while its slots fill, read, taken away, and opened again."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from backend.recipe.serving import serve_presets
from backend.ui.share import pack

END_MS = 120_000
STAYS = "document.querySelectorAll('.st-key-inspect-plot-slots-A .stay').length"


def brief() -> str:
    """The first preset's setting with few and short requests."""
    serving = serve_presets()["static-against-continuous"].serving
    load = serving.load.model_copy(update={"requests": 24, "burst": 24, "prompt_max": 64, "output_max": 128})
    return pack(serving.model_copy(update={"load": load, "check_alone": 1}))


def test_a_load_is_served_read_and_shared(app: Any, new_page: Any, shoot: Callable[..., Path]) -> None:
    page: Page = new_page(viewport={"width": 1280, "height": 1500})
    page.goto(f"{app.url}/serve")
    expect(page.get_by_text("The gaps in the slots of the baseline")).to_be_visible()  # the preset of a first visit
    page.goto(f"{app.url}/serve?serving={brief()}")
    page.get_by_role("button", name="Serve", exact=True).click()
    page.wait_for_url(re.compile(r"serve=\d+"))
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile(r"serving, \d+ of 48 answers, \d+%, .* left, estimated"))).to_be_visible()
    stays = page.evaluate(STAYS)
    page.wait_for_function(f"stays => {STAYS} > stays + 2", arg=stays)
    shoot(page, "serving")
    expect(page.get_by_text(re.compile(r"Serving \d+\. Finished"))).to_be_visible(timeout=END_MS)
    expect(page.get_by_text(re.compile(r"A, continuous batching, serves .* tokens a second"))).to_be_visible()
    expect(page.get_by_text(re.compile("answers have the tokens that they have alone")).first).to_be_visible()
    shoot(page, "served", full_page=True)
    taken = {name: download(page, name) for name in ("JSON", "CSV")}
    assert json.loads(taken["JSON"])["state"] == "finished"
    assert len(list(csv.DictReader(taken["CSV"].splitlines()))) == 48
    again(app, new_page(), page.url)


def download(page: Page, name: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(download.value.path()).read_text(encoding="utf-8")


def again(app: Any, page: Page, url: str) -> None:
    """The address shows the same result in another browser; what cannot be served is a card there."""
    page.goto(url)
    expect(page.get_by_text(re.compile(r"Serving \d+\. Finished"))).to_be_visible()
    expect(page.get_by_label("requests", exact=True)).to_have_value("24")
    most = page.get_by_label("longest answer, tokens", exact=True)
    most.fill("5000")
    most.press("Enter")
    expect(page.get_by_text("This cannot be served as it stands")).to_be_visible()
    expect(page.get_by_text("What to do").first).to_be_visible()
    expect(page.get_by_role("button", name="Serve", exact=True)).to_be_disabled()
