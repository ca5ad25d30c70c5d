"""What the live element is told, the figures afterwards, and that none of it brings torch in."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import staged
from starlette.applications import Starlette
from starlette.testclient import TestClient

from backend.journal import Journal
from backend.ui.charts import race_charts
from backend.ui.live import wire
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


def stream(client: TestClient, job: int, last: str = "") -> tuple[list[str], list[dict[str, Any]]]:
    """All ids and payloads that one connection is told."""
    answer = client.get(f"/live/{job}", headers={"Last-Event-ID": last} if last else {})
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = answer.text.splitlines()
    ids = [line[4:] for line in lines if line.startswith("id: ")]
    return ids, [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


def test_a_stream_tells_everything_once_and_goes_on_from_where_an_element_stands(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "STREAM_S", 0.3)
    client = TestClient(Starlette(routes=routes()))
    with Journal() as journal:
        *_, feed = play(journal)
        (held,), (told,) = stream(client, feed.job.id)  # nothing new comes: one payload, then the stream ends
        assert told["lanes"][0]["ids"] == feed.view.lanes["base"].ids
        assert stream(client, feed.job.id, held) == ([], [])
        journal.finish(feed.job.id, "finished")
        (_,), (last,) = stream(client, feed.job.id, held)
    assert last["state"] == "finished"
    assert last["lanes"][0]["ids"] == []


@contextmanager
def meanwhile(delay_s: float, write: Callable[[Journal], object]) -> Iterator[None]:
    """Write into the journal from elsewhere, a while after the block has begun."""

    def later() -> None:
        time.sleep(delay_s)
        with Journal() as other:
            write(other)

    writer = threading.Thread(target=later)
    writer.start()
    try:
        yield
    finally:
        writer.join()


def test_a_stream_tells_news_while_it_is_open(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "STREAM_S", 1.5)
    client = TestClient(Starlette(routes=routes()))
    with Journal() as journal:
        *_, feed = play(journal, tokens=16)
    with meanwhile(0.5, lambda other: other.cancel(feed.job.id)):
        _, told = stream(client, feed.job.id)
    assert len(told) == 2
    assert "cancelling" in told[1]["progress"]["text"]


def test_an_end_that_comes_while_the_stream_rests_is_told_without_another_write(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "REST_S", 0.6)
    client = TestClient(Starlette(routes=routes()))
    with Journal() as journal:
        *_, feed = play(journal, tokens=16)
    began = time.monotonic()
    with meanwhile(0.2, lambda other: other.finish(feed.job.id, "cancelled")):
        _, told = stream(client, feed.job.id)
    assert [one["state"] for one in told] == ["running", "cancelled"]
    assert time.monotonic() - began < 2.0


def test_the_wire_refuses_what_it_cannot_read(home: Path) -> None:
    with Journal() as journal:
        *_, feed = play(journal, tokens=4)
    client = TestClient(Starlette(routes=routes()))
    assert client.get("/live/999").status_code == 404
    assert client.get(f"/live/{feed.job.id}", headers={"Last-Event-ID": "nonsense"}).status_code == 400


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
