"""Chrome traces that inspections leave in the state folder: named after their job, the oldest removed."""

from __future__ import annotations

import re
from pathlib import Path

from backend.journal import state_folder

KEPT = 64  # files; one is some hundred kB, packed
_NAME = re.compile(r"inspect-\d+-(base|[A-C])-(decode|prefill)\.json\.gz")


def traces_folder() -> Path:
    """Where traces lie; made when it is not there."""
    folder = state_folder() / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def trace_name(job: int, lane: str, shape: str) -> str:
    """The file's name for one lane and call shape of an inspection."""
    return f"inspect-{job}-{lane}-{shape}.json.gz"


def read_trace(name: str) -> bytes | None:
    """A trace as it was written, packed by gzip; None for a name that is none, or a file that was removed."""
    path = traces_folder() / name
    return path.read_bytes() if _NAME.fullmatch(name) and path.is_file() else None


def tidy_traces(kept: int = KEPT) -> None:
    """Remove all but the newest traces."""
    files = [path for path in traces_folder().iterdir() if _NAME.fullmatch(path.name)]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)[kept:]:
        path.unlink(missing_ok=True)
