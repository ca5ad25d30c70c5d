"""The journal: what happened. One SQLite file, the store and the wire between the page and the worker.

A page inserts a job and reads events after the last id it has seen; the worker claims the job and appends events.
Nothing else passes between them, so either side can be restarted or killed without losing a finished result.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backend.journal_file import JournalFull, JournalInUse, connect, writing
from backend.journal_rows import ENDED, Event, Job

__all__ = ["ENDED", "Event", "Job", "Journal", "JournalFull", "JournalInUse", "state_folder"]
# Kinds that use the whole machine, and so wait for one another.
IN_TURN = ("race", "inspect", "encode", "save", "thin", "context", "serve")
RESERVE_BYTES = 512 * 1024  # kept free so that a full disk can still be written down
GROUP = "group "  # begins the name of processes that train together, with no worker
STALE_S = 15.0  # a running job whose worker was silent this long has lost its worker


def state_folder() -> Path:
    """Where the journal, logs and fetched models live: HEADWAY_HOME, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headway"
    folder = Path(os.environ.get("HEADWAY_HOME", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Journal:
    """One connection to the journal file. Cheap to open; not shared between threads."""

    def __init__(self, path: Path | None = None, check: bool = False) -> None:
        """Open or create the file; one that is damaged or of another version is set aside, never overwritten.

        Args:
            path: the file; without it the one in the state folder.
            check: read the whole file for damage, as who starts first does.
        Raises:
            JournalFull, JournalInUse: see `journal_file.connect`.
        """
        self.path = path or state_folder() / "journal.sqlite"
        self.db, self.set_aside = connect(self.path, check)
        self._reserve = self.path.with_name(self.path.name + ".reserve")
        if not self._reserve.exists() and shutil.disk_usage(self.path.parent).free > 16 * RESERVE_BYTES:
            self._reserve.write_bytes(b"\0" * RESERVE_BYTES)

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What a page does

    def submit(self, kind: str, spec: dict[str, Any], owner: str = "", worker: str | None = None) -> int:
        """Queue a job and return its id; with `worker` it is that one's at once, and nobody else's."""
        now, state = time.time(), "running" if worker else "queued"
        with writing(self.db):
            row = self.db.execute(
                "INSERT INTO jobs (created, kind, owner, spec, state, worker, heartbeat) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (now, kind, owner, json.dumps(spec), state, worker, now if worker else None),
            )
        return int(row.lastrowid or 0)

    def cancel(self, job: int) -> None:
        """Ask for the end of a job: a queued one ends at once, a running one within a slice."""
        with writing(self.db):
            self.db.execute(
                "UPDATE jobs SET cancel=1, finished=CASE WHEN state IN ('queued', 'paused') THEN ? ELSE finished END,"
                " state=CASE WHEN state IN ('queued', 'paused') THEN 'cancelled' ELSE state END WHERE id=?",
                (time.time(), job),
            )

    def pause(self, job: int) -> None:
        """Let a training rest: it is written down within a step, and nothing of it stays in memory."""
        self._turn(job, "paused", ("queued", "running"))

    def resume(self, job: int) -> None:
        """Put a training that rests, or was ended, back into the queue: it goes on from its last checkpoint."""
        self._turn(job, "queued", ("paused", "failed", "cancelled"))

    def _turn(self, job: int, state: str, states: tuple[str, ...]) -> None:
        where = f"id=? AND kind='train' AND state IN ({_marks(states)})"
        with writing(self.db):
            self.db.execute(f"UPDATE jobs SET state=?, cancel=0, finished=NULL WHERE {where}", (state, job, *states))

    def events(self, job: int, after: int = 0) -> list[Event]:
        """The events of a job with an id above `after`, in order."""
        rows = self.db.execute(
            "SELECT id, job, at, kind, lane, data FROM events WHERE job=? AND id>? ORDER BY id", (job, after)
        )
        return [_event(row) for row in rows]

    def events_of(self, job: int, kinds: tuple[str, ...]) -> list[Event]:
        """The events of a job that are of these kinds, in order: a curve of looks does not read every step."""
        query = (
            f"SELECT id, job, at, kind, lane, data FROM events WHERE job=? AND kind IN ({_marks(kinds)}) ORDER BY id"
        )
        return [_event(row) for row in self.db.execute(query, (job, *kinds))]

    def last(self, job: int, kind: str) -> Event | None:
        """The last event of one kind, or None: a table of races does not read all that happened in each."""
        query = "SELECT id, job, at, kind, lane, data FROM events WHERE job=? AND kind=? ORDER BY id DESC LIMIT 1"
        row = self.db.execute(query, (job, kind)).fetchone()
        return _event(row) if row else None

    @property
    def version(self) -> int:
        """A number that changes when another connection has written anything; read in microseconds."""
        return int(self.db.execute("PRAGMA data_version").fetchone()[0])

    def job(self, job: int) -> Job | None:
        """One job, or None."""
        return next(iter(self._jobs("WHERE id=?", (job,))), None)

    def jobs(self, kind: str | None = None, states: Iterable[str] = (), limit: int = 200) -> list[Job]:
        """Jobs, the newest first."""
        states = tuple(states)
        where, values = ["1=1"], []
        if kind:
            where.append("kind=?")
            values.append(kind)
        if states:
            where.append(f"state IN ({_marks(states)})")
            values.extend(states)
        return self._jobs(f"WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT {int(limit)}", tuple(values))

    def _jobs(self, where: str, values: tuple[Any, ...]) -> list[Job]:
        rows = self.db.execute(
            f"SELECT id, created, kind, owner, spec, state, cancel, finished FROM jobs {where}", values
        )
        return [Job(r[0], r[1], r[2], r[3], json.loads(r[4]), r[5], bool(r[6]), r[7]) for r in rows]

    def place(self, job: int) -> int:
        """How many unfinished jobs of the same queue stand before this one: 0 is its turn."""
        asked = self.job(job)
        kinds = IN_TURN if asked and asked.kind in IN_TURN else (asked.kind if asked else "",)
        query = f"SELECT count(*) FROM jobs WHERE id<? AND state IN ('queued', 'running') AND kind IN ({_marks(kinds)})"
        return int(self.db.execute(query, (job, *kinds)).fetchone()[0])

    def workers(self, groups: bool = False) -> list[str]:
        """Names of the workers that beat within the last STALE_S seconds; none means that nobody takes jobs.

        Groups of processes that bear one training beat too; they take no other job.
        """
        rows = self.db.execute("SELECT name FROM workers WHERE at>?", (time.time() - STALE_S,))
        return [row[0] for row in rows if groups or not row[0].startswith(GROUP)]

    # What a worker does

    def beat(self, worker: str, pid: int) -> None:
        """Say that the worker lives."""
        with writing(self.db):
            row = (worker, pid, time.time())
            self.db.execute("INSERT OR REPLACE INTO workers (name, pid, at) VALUES (?, ?, ?)", row)

    def leave(self, worker: str) -> None:
        """Say that the worker ends."""
        with writing(self.db):
            self.db.execute("DELETE FROM workers WHERE name=?", (worker,))

    def claim(self, worker: str, *kinds: str) -> Job | None:
        """Take the oldest queued job of these kinds, or None."""
        query = f"SELECT id FROM jobs WHERE state='queued' AND kind IN ({_marks(kinds)}) ORDER BY id LIMIT 1"
        if self.db.execute(query, kinds).fetchone() is None:
            return None  # an idle worker asks ten times a second: a read takes no write lock
        with writing(self.db):
            row = self.db.execute(query, kinds).fetchone()
            if row:
                self.db.execute(
                    "UPDATE jobs SET state='running', worker=?, heartbeat=? WHERE id=?", (worker, time.time(), row[0])
                )
        return self.job(row[0]) if row else None

    def append(self, job: int, events: Iterable[tuple[str, str | None, dict[str, Any]]]) -> None:
        """Write (kind, lane, data) events in one transaction and show that the worker lives.

        Raises:
            JournalFull: when the disk is full.
        """
        with writing(self.db):
            self._append(job, events)

    def _append(self, job: int, events: Iterable[tuple[str, str | None, dict[str, Any]]]) -> None:
        now = time.time()
        rows = [(job, now, kind, lane, json.dumps(data, separators=(",", ":"))) for kind, lane, data in events]
        self.db.executemany("INSERT INTO events (job, at, kind, lane, data) VALUES (?, ?, ?, ?, ?)", rows)
        self.db.execute("UPDATE jobs SET heartbeat=? WHERE id=?", (now, job))

    def use_reserve(self) -> None:
        """Give back the room that was kept, so that the last words about a full disk can be written."""
        self._reserve.unlink(missing_ok=True)

    def cancelled(self, job: int) -> bool:
        """Whether somebody asked for the end of the job."""
        row = self.db.execute("SELECT cancel FROM jobs WHERE id=?", (job,)).fetchone()
        return bool(row and row[0])

    def state(self, job: int) -> str:
        """The state of a job; '' where there is none."""
        row = self.db.execute("SELECT state FROM jobs WHERE id=?", (job,)).fetchone()
        return str(row[0]) if row else ""

    def finish(self, job: int, state: str) -> None:
        """Set the final state of a job."""
        with writing(self.db):
            self.db.execute("UPDATE jobs SET state=?, finished=? WHERE id=?", (state, time.time(), job))

    def fail_orphans(self, alive: Iterable[str] = ()) -> list[int]:
        """End the running jobs whose worker is gone; what they measured stays. Returns their ids.

        A training goes back into the queue instead, and on from its last checkpoint.
        """
        known = tuple(alive)
        gone = f"state='running' AND (worker IS NULL OR worker NOT IN ({_marks(known)}))"
        query = f"SELECT id FROM jobs WHERE kind<>'train' AND {gone}"
        card = {
            "field": "worker",
            "value": "killed",
            "allowed": "a worker that lives to the end of the race",
            "remedy": "It was started again: race once more. What was measured before stays.",
        }
        with writing(self.db):  # looked up inside: two workers that start at once end each job once
            self.db.execute(f"UPDATE jobs SET state='queued' WHERE kind='train' AND {gone}", known)
            lost = [row[0] for row in self.db.execute(query, known)]
            for job in lost:
                self._append(job, [("failed", None, {"card": card})])
                self.db.execute("UPDATE jobs SET state='failed', finished=? WHERE id=?", (time.time(), job))
        return lost


def _marks(values: tuple[str, ...]) -> str:
    """Placeholders for a tuple of values."""
    return ",".join("?" * len(values))


def _event(row: tuple[Any, ...]) -> Event:
    number, job, at, kind, lane, data = row
    return Event(number, job, at, kind, lane, json.loads(data))
