"""What a session has at hand: its connection to the journal, its name as an owner, and the race that it follows."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from backend.eventview import EventView
from backend.journal import Job, Journal, JournalFull
from backend.recipe.race import Race
from backend.ui.live.feed import Feed

V = TypeVar("V", bound=EventView[Any])
RACES = ("race", "encode")  # kinds of jobs that hold a race: of decoders, of encoders
NOTICE_S = 24 * 3600.0  # how long a journal that was set aside is spoken of


def journal() -> Journal:
    """The session's connection."""
    if "journal" not in st.session_state:
        st.session_state["journal"] = Journal()
    held: Journal = st.session_state["journal"]
    return held


def owner() -> str:
    """A name for this session, so that its races can be told from others'."""
    return str(st.session_state.setdefault("owner", uuid.uuid4().hex[:12]))


def submit(race: Race, kind: str = "race") -> None:
    """Queue a race and follow it, in the session and in the URL; `kind` is one of RACES."""
    job = journal().submit(kind, race.model_dump(mode="json"), owner())
    st.session_state["job"] = job
    st.query_params.from_dict({"job": str(job)})


def view_of(job: Job, shelf: str, kind: type[V]) -> V:
    """A job's folded events, kept on a shelf of the session between drawings."""
    kept = st.session_state.get(shelf)
    if not isinstance(kept, tuple) or kept[0] != job.id:
        kept = st.session_state[shelf] = (job.id, kind())
    view: V = kept[1]
    return view.apply_all(journal().events(job.id, view.last_id))


def full_card(error: JournalFull) -> dict[str, str]:
    """The card of a journal in which nothing more can be written."""
    return {
        "field": "journal",
        "value": str(error),
        "allowed": "room on the disk that holds the journal",
        "remedy": f"Free some space on the disk of {journal().path.parent}.",
    }


def current() -> Job | None:
    """The race that is followed: the session's, or the one that the URL names; None without one."""
    asked = st.session_state.get("job") or st.query_params.get("job", "")
    if not str(asked).isascii() or not str(asked).isdigit() or len(str(asked)) > 15:
        return None
    job = journal().job(int(asked))
    if job is None or job.kind not in RACES:
        return None
    st.session_state["job"] = job.id
    if st.query_params.get("job") != str(job.id):
        st.query_params["job"] = str(job.id)
    return job


def feed_of(job: Job, shelf: str = "feed") -> Feed:
    """The race's folded events, kept between drawings."""
    feed = st.session_state.get(shelf)
    if not isinstance(feed, Feed) or feed.job.id != job.id:
        feed = st.session_state[shelf] = Feed(job)
    return feed


def set_aside() -> list[Path]:
    """Journals that were damaged or of another version and were set aside within a day, the newest first."""
    folder = journal().path.parent
    found = [path for path in folder.glob("*.set-aside-*.sqlite") if time.time() - path.stat().st_mtime < NOTICE_S]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def verdict_of(job: int) -> dict[str, Any] | None:
    """The verdict of a race that has ended, without folding all its events; kept for the session."""
    known: dict[int, dict[str, Any] | None] = st.session_state.setdefault("verdicts", {})
    if job not in known:
        event = journal().last(job, "verdict")
        known[job] = event.data if event else None
    return known[job]
