"""The journal's file: opened, created, or set aside when it is damaged or of another version; never overwritten."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = 1
BUSY_S = 10.0  # how long one connection waits for another one's write
_SCHEMA = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created REAL NOT NULL, kind TEXT NOT NULL, owner TEXT NOT NULL,
    spec TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued', worker TEXT, heartbeat REAL,
    cancel INTEGER NOT NULL DEFAULT 0, finished REAL
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL REFERENCES jobs(id), at REAL NOT NULL,
    kind TEXT NOT NULL, lane TEXT, data TEXT NOT NULL
);
CREATE TABLE workers (name TEXT PRIMARY KEY, pid INTEGER NOT NULL, at REAL NOT NULL);
CREATE INDEX events_by_job ON events(job, id);
CREATE INDEX jobs_by_state ON jobs(state, id);
"""


class JournalFull(OSError):
    """The disk that holds the journal is full: nothing more can be written down."""


class JournalInUse(OSError):
    """Another version of Headway holds the journal open: it can be neither read nor set aside."""


class _OtherVersion(Exception):
    """The file was written by another version of the journal."""


def connect(path: Path, check: bool = False) -> tuple[sqlite3.Connection, Path | None]:
    """Open or create the journal; returns the connection, and where an unusable file was set aside to (or None).

    Args:
        path: the file; its folder must exist.
        check: read the whole file for damage too (about a third of a second for 100 MB).
    Raises:
        JournalFull: when there is no room to create it.
        JournalInUse: when another version of Headway has it open.
    """
    try:
        return _open(path, check), None
    except (sqlite3.DatabaseError, _OtherVersion) as error:
        if not _unusable(error):
            raise
    with _alone(path):
        # Another process may have set the same file aside a moment ago: its new file must stay.
        try:
            return _open(path, check), None
        except (sqlite3.DatabaseError, _OtherVersion) as error:
            if not _unusable(error):
                raise
            if isinstance(error, _OtherVersion):
                _require_unused(path)
        aside = _set_aside(path)
        return _open(path, check), aside


def _open(path: Path, check: bool) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        # Looked at before anything is changed: another version's file must stay as it is, byte for byte.
        if _version(db) not in (0, VERSION) or (_version(db) == 0 and _has_tables(db)):
            raise _OtherVersion(_version(db))
        _use_wal(db)
        db.execute("PRAGMA synchronous=NORMAL")
        if _version(db) == 0:  # only a new file takes the write lock: a reader waits for nobody
            with writing(db):
                if _version(db) == 0:
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version={VERSION}")
        for table in ("jobs", "events", "workers"):
            db.execute(f"SELECT * FROM {table} ORDER BY rowid DESC LIMIT 1").fetchone()
        if check and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"malformed: {found}")
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _has_tables(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master").fetchone() is not None


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; two processes that switch a new file at once do not wait by themselves."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """One write transaction.

    Raises:
        JournalFull: when the disk is full; nothing of the transaction was written.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        _roll_back(db)
        if "full" in str(error) or "disk I/O" in str(error):
            raise JournalFull(str(error)) from error
        raise
    except BaseException:
        _roll_back(db)
        raise


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the system frees the lock of a killed one."""
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _require_unused(path: Path) -> None:
    """Refuse to rename a sound file that others have open: SQLite would mix up the two write-ahead logs."""
    if not path.with_name(path.name + "-wal").exists():
        return  # the last connection to close removes it
    db = sqlite3.connect(path, timeout=0.5, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=DELETE")  # needs to be the only connection; folds the log into the file
    except sqlite3.OperationalError as error:
        raise JournalInUse(f"{path} is open in another version of Headway: stop that one first") from error
    finally:
        db.close()


def _set_aside(path: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.stem}.set-aside-{stamp}-{os.getpid()}{path.suffix}")
    # The write-ahead log goes first: a process that opens in between must not apply it to a new file.
    for suffix in ("-wal", "-shm", ""):
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.rename(aside.with_name(aside.name + suffix))
    return aside


def _unusable(error: Exception) -> bool:
    """Whether the file itself is the trouble, and not a lock, a right or the disk."""
    if isinstance(error, _OtherVersion) or not isinstance(error, sqlite3.OperationalError):
        return True
    return any(word in str(error) for word in ("malformed", "not a database", "no such table", "no such column"))
