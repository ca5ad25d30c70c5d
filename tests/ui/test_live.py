"""What the live element is told, the figures afterwards, and that none of it brings torch in."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import staged
from starlette.applications import Starlette
from starlette.testclient import TestClient

from backend.journal import Journal
from backend.ui.charts import race_charts
from backend.ui.live.feed import Feed
from backend.ui.live.wire import routes

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


def play(journal: Journal, tokens: int = 128) -> Iterator[Feed]:
    """A feed that looks after every write."""
    race = staged.race(tokens)
    number = journal.submit("race", race.model_dump(mode="json"))
    job = journal.claim("a worker", "race")
    assert job is not None
    feed = Feed(job)
    for events in [*staged.opening(tokens), *staged.racing(tokens)]:
        journal.append(number, events)
        feed.follow(journal)
        yield feed


@pytest.mark.parametrize("every", [1, 3, 50])
def test_the_pieces_make_the_whole_however_seldom_the_element_asks(journal: Journal, every: int) -> None:
    texts: dict[str, list[str]] = {}
    scores: dict[str, int] = {}
    for turn, feed in enumerate(play(journal)):
        if turn % every:
            continue
        held = {name: (len(parts), scores[name]) for name, parts in texts.items()}
        for lane in feed.tell(held)["lanes"]:
            texts.setdefault(lane["name"], []).extend(lane["texts"])
            scores[lane["name"]] = scores.get(lane["name"], 0) + len(lane["kld"])
    for name, parts in texts.items():
        assert parts == feed.view.lanes[name].texts[: len(parts)]
        if every == 1:
            assert parts == feed.view.lanes[name].texts


def test_nothing_new_leaves_the_number_as_it_is(journal: Journal) -> None:
    *_, feed = play(journal)
    before = feed.seq
    feed.follow(journal)
    assert feed.seq == before
    journal.cancel(feed.job.id)
    feed.follow(journal)
    assert feed.seq == before + 1


def test_an_update_stays_small_and_cheap(journal: Journal) -> None:
    *_, feed = play(journal, tokens=512)
    held = {name: (len(lane.ids) - 20, len(lane.decode.kld) - 20) for name, lane in feed.view.lanes.items()}
    assert len(json.dumps(feed.tell(held))) < 8_000
    began = time.process_time()
    for _ in range(50):
        feed.follow(journal)
        feed.tell(held)
    assert (time.process_time() - began) / 50 < 0.008


def test_the_wire_tells_what_is_new_and_refuses_what_it_cannot_read(home: Path) -> None:
    with Journal() as journal:
        *_, feed = play(journal)
    client = TestClient(Starlette(routes=routes()))
    told = client.get(f"/live/{feed.job.id}?seq=-1").json()
    assert told["lanes"][0]["ids"] == feed.view.lanes["base"].ids
    rest = client.get(f"/live/{feed.job.id}?seq=-1&held=base:{len(told['lanes'][0]['ids'])}:0").json()
    assert rest["lanes"][0]["ids"] == []
    assert client.get("/live/999?seq=0").status_code == 404
    assert client.get(f"/live/{feed.job.id}?held=nonsense").status_code == 400


def test_the_wire_waits_until_there_is_something_new(home: Path) -> None:
    with Journal() as journal:
        *_, feed = play(journal)
    client = TestClient(Starlette(routes=routes()))
    seq = client.get(f"/live/{feed.job.id}").json()["seq"]
    began = time.monotonic()
    assert client.get(f"/live/{feed.job.id}?seq={seq}").json()["seq"] == seq
    assert time.monotonic() - began > 1.5


def test_a_place_in_the_queue_is_told(journal: Journal) -> None:
    race = staged.race().model_dump(mode="json")
    numbers = [journal.submit("race", race) for _ in range(3)]
    job = journal.job(numbers[-1])
    assert job is not None
    feed = Feed(job)
    feed.follow(journal)
    assert feed.tell()["progress"]["text"] == "2 races before yours."
    journal.leave("a worker")
    feed.follow(journal)
    assert "python -m backend" in feed.tell()["progress"]["text"]


def test_figures_start_at_zero_name_their_axes_and_have_words(journal: Journal) -> None:
    *_, feed = play(journal)
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
