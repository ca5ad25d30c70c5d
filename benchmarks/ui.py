"""The page beside the lanes: first paint, refreshes a second, and what an open page costs a race.

Races on which a page is opened and left in turn, on one Headway. Browser, server and lanes share the cores.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from backend.journal import Job, Journal
from backend.metrics import paired_ratio
from backend.up import answers
from benchmarks._bench import STORY, Bench, make_race

RACES = 16  # even: two and two are taken together
TOKENS = 800
WATCHED = 560  # tokens of the baseline: until then the variant, which is faster, runs too
SPAN_S = 10.0  # with the page open or without
SETTLE_S = 3.0  # of them, after a page has begun to show or gone: a page that loads keeps a core busy for 2 s
FEWEST_SLICES = 8  # of the baseline in a stretch that counts
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime / 1000)[0]"


@contextmanager
def headway(home: Path) -> Iterator[str]:
    """A Headway of its own; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "backend", "up", "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ | {"HEADWAY_HOME": str(home)}, stdout=subprocess.DEVNULL)
    try:
        while not answers(port):
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def first_paint(browser: Browser, url: str) -> float:
    """Seconds to the first contentful paint of a page that the server has served before."""
    paints = []
    for _ in range(4):
        page = browser.new_page()
        page.goto(url)
        page.get_by_role("button", name="Race", exact=True).wait_for()
        paints.append(float(page.evaluate(PAINT)))
        page.close()
    return sorted(paints[1:])[1]


@dataclass(frozen=True)
class Span:
    """A stretch of a race with the page open or with none: what a token took, and how often the page drew."""

    clock_s: float  # of the baseline's lane clock, a token
    wall_s: float  # a token
    refreshes: float | None = None  # a second

    def with_(self, other: Span) -> Span:
        """The geometric mean of two, at the slower of their refreshes."""
        rates = [rate for rate in (self.refreshes, other.refreshes) if rate is not None]
        return Span(
            math.sqrt(self.clock_s * other.clock_s), math.sqrt(self.wall_s * other.wall_s), min(rates, default=None)
        )


Pair = tuple[Span, Span]  # with the page open, with none


def alternate(journal: Journal, page: Page, url: str, opened: bool) -> list[Pair]:
    """One race while both its lanes run, its page opened and left in turn; neighbouring stretches, (open, left).

    Within one race, since two races differ by more than a page costs: 5% from one half minute to the next.
    """
    measure = {"budget_s": 0, "quality_tokens": 0, "questions": 0}
    race = make_race("storyteller", STORY, {"int8_weight_only": {}}, max_new_tokens=TOKENS, measure=measure)
    job = journal.submit("race", race.model_dump(mode="json"))
    while not _done(journal, job):
        time.sleep(0.1)
    spans: list[Span | None] = []
    states = itertools.cycle((opened, not opened))
    while _done(journal, job) < WATCHED:
        state = next(states)
        began, updates = time.time(), _turn_to(page, f"{url}/?job={job}" if state else None)
        time.sleep(SETTLE_S)
        settled, drawn = time.time(), updates()
        while time.time() < began + SPAN_S and _done(journal, job) < WATCHED:
            time.sleep(0.2)
        ended = time.time()
        spans.append(_span(journal, job, settled, ended, (updates() - drawn) / (ended - settled) if state else None))
    journal.cancel(job)
    _turn_to(page, None)
    while not _job(journal, job).ended:
        time.sleep(0.1)
    both = [(one, other) for one, other in zip(spans[::2], spans[1::2], strict=False) if one and other]
    return both if opened else [(other, one) for one, other in both]


def crossed(races: list[list[Pair]]) -> list[Pair]:
    """The same stretches of two races in a row, of which one began with the page: a longer text weighs on both."""
    return [
        (one[0].with_(other[0]), one[1].with_(other[1]))
        for first, second in zip(races[::2], races[1::2], strict=True)
        for one, other in zip(first, second, strict=False)
    ]


def _job(journal: Journal, number: int) -> Job:
    job = journal.job(number)
    if job is None:
        raise LookupError(f"job {number}")
    return job


def _done(journal: Journal, job: int) -> int:
    """Tokens that all lanes have written."""
    phase = journal.last(job, "phase")
    return int(phase.data["done"]) if phase and phase.data["name"] == "racing" else 0


def _turn_to(page: Page, address: str | None) -> Callable[[], int]:
    """Open the race's page, or leave it; returns what counts how often it has drawn."""
    page.goto(address or "about:blank")
    if address is None:
        return lambda: 0
    element = page.locator("section.race").first
    element.wait_for()
    return lambda: int(element.get_attribute("data-updates") or 0)


def _span(journal: Journal, job: int, begin: float, end: float, rate: float | None) -> Span | None:
    """What the baseline's slices between two moments took; None of too few."""
    slices = [e for e in journal.events(job) if e.kind == "tokens" and e.lane == "base" and begin <= e.at <= end]
    if len(slices) < FEWEST_SLICES:
        return None
    first, last = slices[0], slices[-1]
    tokens = last.data["start"] + len(last.data["ids"]) - first.data["start"] - len(first.data["ids"])
    return Span((last.data["clock"][-1] - first.data["clock"][-1]) / tokens, (last.at - first.at) / tokens, rate)


def main() -> None:
    """Print what the page takes; exit 1 when it takes too much."""
    bench = Bench("ui")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sys.exit("ui: no Chromium or Chrome on this machine")
    with tempfile.TemporaryDirectory() as folder, headway(Path(folder)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        bench.check("first paint on a warm server, s", first_paint(browser, url), at_most=2.0)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        with Journal(Path(folder) / "journal.sqlite") as journal:
            alternate(journal, page, url, opened=True)  # the first race warms up
            pairs = crossed([alternate(journal, page, url, opened=race % 2 == 0) for race in range(RACES)])
        browser.close()
    speed = paired_ratio([left.clock_s for _, left in pairs], [shown.clock_s for shown, _ in pairs])
    wall = paired_ratio([shown.wall_s for shown, _ in pairs], [left.wall_s for _, left in pairs])
    bench.show("lane speed with the page open over without", speed)
    bench.show("wall time a token with the page open over without", wall)
    rates = [shown.refreshes for shown, _ in pairs if shown.refreshes is not None]
    bench.check("refreshes a second, the slowest stretch", min(rates, default=0.0), at_least=5.0)
    bench.check("lane speed with the page open", speed.ratio, at_least=0.97)
    bench.check("wall time with the page open", wall.ratio, at_most=1.25)
    bench.end()


if __name__ == "__main__":
    main()
