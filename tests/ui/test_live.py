"""What the live element is told, the figures afterwards, and that none of it brings torch in."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import staged

from backend.journal import Journal
from backend.ui.charts import race_charts
from backend.ui.live.feed import Feed

ROOT = Path(__file__).resolve().parents[2]
TRY = """
import importlib, pkgutil, sys
import backend.ui
for found in pkgutil.walk_packages(backend.ui.__path__, "backend.ui."):
    importlib.import_module(found.name)
heavy = {"torch", "transformers"} & set(sys.modules)
assert not heavy, heavy
from backend.recipe.race import all_presets
all_presets()
heavy = {"torch", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""


def play(journal: Journal, tokens: int = 128) -> tuple[Feed, list[dict]]:
    """A feed that looks after every write, and what it was told each time."""
    race = staged.race(tokens)
    number = journal.submit("race", race.model_dump(mode="json"))
    job = journal.claim("a worker", "race")
    assert job is not None
    feed, told = Feed(job), []
    steps = [*staged.opening(tokens), *staged.racing(tokens)]
    for events in steps:
        journal.append(number, events)
        told.append(feed.update(journal))
    return feed, told


def joined(told: list[dict], keep: int = 1) -> dict[str, list[str]]:
    """What an element would hold that saw every `keep`th payload."""
    texts: dict[str, list[str]] = {}
    for payload in told[::keep]:
        for lane in payload["lanes"]:
            held = texts.setdefault(lane["name"], [])
            assert lane["from"] <= len(held), "a hole: the element would have to ask for everything"
            held.extend(lane["texts"][len(held) - lane["from"] :])
    return texts


def test_the_pieces_make_the_whole_even_where_the_browser_skips_some(journal: Journal) -> None:
    feed, told = play(journal)
    for keep in (1, 3):
        held = joined([*told, feed.update(journal)], keep)
        for name, texts in held.items():
            whole = feed.view.lanes[name].texts
            assert texts == whole[: len(texts)]
            assert len(whole) - len(texts) < 60
    assert joined([feed.whole()]) == {name: lane.texts for name, lane in feed.view.lanes.items()}


def test_nothing_new_is_nothing_told(journal: Journal) -> None:
    feed, told = play(journal)
    assert feed.update(journal) is told[-1]
    assert feed.update(journal)["seq"] == told[-1]["seq"]


def test_an_update_stays_small_and_cheap(journal: Journal) -> None:
    feed, told = play(journal, tokens=512)
    sizes = [len(json.dumps(payload)) for payload in told]
    assert max(sizes) < 40_000
    assert sizes[-1] < 2 * max(sizes[len(sizes) // 2 :])
    began = time.process_time()
    for _ in range(50):
        feed.update(journal)
    assert (time.process_time() - began) / 50 < 0.008


def test_a_place_in_the_queue_is_told(journal: Journal) -> None:
    race = staged.race().model_dump(mode="json")
    numbers = [journal.submit("race", race) for _ in range(3)]
    job = journal.job(numbers[-1])
    assert job is not None
    assert Feed(job).update(journal)["progress"]["text"] == "2 races before yours."
    journal.leave("a worker")
    assert "python -m backend" in Feed(job).update(journal)["progress"]["text"]


def test_figures_start_at_zero_name_their_axes_and_have_words(journal: Journal) -> None:
    feed, _ = play(journal)
    for title, figure, summary in race_charts(feed.view, dark=False):
        assert title
        assert figure is not None
        assert summary.endswith(".")
        assert figure.layout.xaxis.title.text
        assert figure.layout.showlegend is False
    tokens = race_charts(feed.view, dark=False)[0][1]
    assert {line.line.color for line in tokens.data} == {"#6B7280", "#0072B2", "#E69F00"}
    assert len({line.line.dash for line in tokens.data}) == 3
    assert {note.text for note in tokens.layout.annotations} == {"base", "A", "B sim."}


def test_figures_without_data_say_so() -> None:
    from backend.replay import RaceView

    for _, figure, summary in race_charts(RaceView(), dark=True):
        assert figure is None
        assert summary


def test_the_pages_bring_in_neither_torch_nor_transformers() -> None:
    done = subprocess.run([sys.executable, "-c", TRY], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_element_puts_texts_in_as_text_only() -> None:
    for name in ("panes.js", "plots.js"):
        script = (ROOT / "backend" / "ui" / "live" / name).read_text()
        assert not any(word in script for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"))
