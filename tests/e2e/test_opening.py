"""The first look: the page opens, at once, from a server that knows nothing of torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page, expect

PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime / 1000)[0]"


def test_the_page_opens_ready_to_race(app: Any, page: Page, shoot: Callable[..., Path]) -> None:
    began = time.monotonic()
    page.goto(app.url)
    expect(page.get_by_role("button", name="Race", exact=True)).to_be_visible()
    ready_s = time.monotonic() - began
    assert "Headway" in page.title() or "Bench" in page.title()
    assert page.get_by_text("Traceback").count() == 0
    assert shoot(page, "opened").stat().st_size > 5_000
    paint_s = page.evaluate(PAINT)
    print(f"\nfirst contentful paint after {paint_s:.2f} s, ready to race after {ready_s:.2f} s")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's mapped files, which only Linux lists")
def test_the_process_of_the_pages_holds_no_torch(app: Any, page: Page) -> None:
    page.goto(app.url)
    expect(page.get_by_role("button", name="Race", exact=True)).to_be_visible()
    servers = [p for p in psutil.Process(app.process.pid).children() if "streamlit" in " ".join(p.cmdline())]
    assert len(servers) == 1
    mapped = [region.path for region in servers[0].memory_maps()]
    assert any("python" in path for path in mapped)
    assert not [path for path in mapped if "torch" in path]
