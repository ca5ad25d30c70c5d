"""A Headway of the tests' own, and a real Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from backend.journal import state_folder
from backend.up import answers

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "docs" / "screenshots"
START_S = 90.0
PATIENCE_MS = 60_000  # a machine of two cores that also races
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
_no_browser: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here drives a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly what did not run."""
    for reason in dict.fromkeys(_no_browser):
        terminalreporter.write_line(f"THE BROWSER TESTS DID NOT RUN: {reason}", red=True, bold=True)


@dataclass
class App:
    """A running Headway: where it answers, the folder it keeps its state in, and the supervisor's process."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]

    def log(self, name: str) -> str:
        """What `worker` or `pages` wrote to its log."""
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


def start_app(home: Path, port: int, with_models: bool = True, **changes: str) -> App:
    """Start `python -m backend up` on an empty state folder and wait until its pages answer.

    Args:
        with_models: whether the models that were fetched on this machine are seen.
        changes: to the environment.
    """
    if with_models:  # what was fetched once serves every test
        models = state_folder() / "models"
        models.mkdir(exist_ok=True)
        (home / "models").symlink_to(models, target_is_directory=True)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"HEADWAY_HOME": str(home)} | changes
    command = [sys.executable, "-m", "backend", "up", "--port", str(port)]
    with (home / "up.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    app = App(f"http://127.0.0.1:{port}", home, process)
    until = time.monotonic() + START_S
    while not answers(port):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"Headway did not start:\n{app.log('up')}\n{app.log('pages')}")
        time.sleep(0.1)
    return app


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One Headway for all journeys; each starts from the same journal, so look at your own race only."""
    running = start_app(tmp_path_factory.mktemp("headway"), free_port())
    yield running
    running.process.terminate()
    running.process.wait(60)


@pytest.fixture
def own_app(tmp_path: Path) -> Iterator[App]:
    """A Headway for one journey alone, for those that kill parts of it."""
    running = start_app(tmp_path, free_port())
    yield running
    running.process.terminate()
    running.process.wait(60)


@pytest.fixture
def bare_app(tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Starts a Headway for one journey alone, with no fetched model; keyword arguments change its environment."""
    started: list[App] = []

    def start(**changes: str) -> App:
        started.append(start_app(tmp_path, free_port(), with_models=False, **changes))
        return started[-1]

    yield start
    for running in started:
        running.process.terminate()
        running.process.wait(60)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium or Chrome that is installed; without one the journeys are skipped, and fail in CI."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = "no Chromium or Chrome on this machine (apt install chromium)"
        _no_browser.append(reason)
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, headless=True, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages, each as a person of its own; keyword arguments are those of a browser context."""
    contexts = []

    def open_page(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """One fresh page, 1280 wide."""
    return new_page()


@pytest.fixture
def shoot(tmp_path: Path) -> Callable[..., Path]:
    """`shoot(page, name)` takes a picture; with HEADWAY_SCREENSHOTS=1 it becomes the one in docs/screenshots."""

    def take(page: Page, name: str, **options: Any) -> Path:
        folder = SCREENSHOTS if os.environ.get("HEADWAY_SCREENSHOTS") == "1" else tmp_path
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        page.screenshot(path=path, animations="disabled", **options)
        return path

    return take
