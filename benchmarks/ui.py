"""The page beside the lanes: first paint, refreshes a second, and what an open page costs a race.

The same race in turn with a page open on it and with none, on one Headway. Browser, server and lanes share the cores.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from backend.journal import Journal
from backend.metrics import paired_ratio
from backend.replay import RaceView
from backend.up import answers
from benchmarks._bench import STORY, Bench, make_race

PAIRS = 6  # whole races differ by some percent from one to the next
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


def run(journal: Journal, browser: Browser | None, url: str) -> tuple[float, float, float | None]:
    """One race: the baseline's tokens/s on its clock, wall seconds, and the page's refreshes a second."""
    measure = {"budget_s": 0, "quality_tokens": 0, "questions": 0}
    race = make_race("storyteller", STORY, {"int8_weight_only": {}}, max_new_tokens=700, measure=measure)
    page = browser.new_page(viewport={"width": 1280, "height": 900}) if browser else None
    if page:
        page.goto(url)
        page.get_by_role("button", name="Race", exact=True).wait_for()
    job = journal.submit("race", race.model_dump(mode="json"))
    if page:
        page.goto(f"{url}/?job={job}")
    rate = _watch(journal, job, page)
    if page:
        page.close()
    view = RaceView().apply_all(journal.events(job))
    times = [event.at for event in journal.events(job) if event.kind == "tokens"]
    return view.lanes["base"].tokens_per_s or 0.0, times[-1] - times[0], rate


def _watch(journal: Journal, job: int, page: Page | None) -> float | None:
    """Wait for the end of a race; count how often the page drew while tokens came."""
    first = last = None
    while not journal.job(job).ended:
        time.sleep(1.0)
        phase = journal.last(job, "phase")
        if page and phase and phase.data["name"] == "racing" and phase.data["done"] > 20:
            drawn = int(page.locator("section.race").first.get_attribute("data-updates") or 0)
            last = (time.monotonic(), drawn)
            first = first or last
    if not first or not last or last[0] - first[0] < 2:
        return None
    return (last[1] - first[1]) / (last[0] - first[0])


def main() -> None:
    """Print what the page takes; exit 1 when it takes too much."""
    bench = Bench("ui")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sys.exit("ui: no Chromium or Chrome on this machine")
    with tempfile.TemporaryDirectory() as folder, headway(Path(folder)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        bench.check("first paint on a warm server, s", first_paint(browser, url), at_most=2.0)
        with Journal(Path(folder) / "journal.sqlite") as journal:
            run(journal, None, url)  # the first race warms up
            shown, hidden = [], []
            for turn in range(PAIRS):
                order = [(shown, browser), (hidden, None)]
                for results, viewer in order if turn % 2 else order[::-1]:
                    results.append(run(journal, viewer, url))
        browser.close()
    rates = [rate for _, _, rate in shown if rate is not None]
    speed = paired_ratio([s for s, _, _ in shown], [s for s, _, _ in hidden])
    wall = paired_ratio([w for _, w, _ in shown], [w for _, w, _ in hidden])
    bench.show("lane speed with the page open over without", speed)
    bench.show("wall time of the race with the page open over without", wall)
    bench.check("refreshes a second, the slowest race", min(rates, default=0.0), at_least=5.0)
    bench.check("lane speed with the page open", speed.ratio, at_least=0.97)
    bench.check("wall time with the page open", wall.ratio, at_most=1.25)
    bench.end()


if __name__ == "__main__":
    main()
