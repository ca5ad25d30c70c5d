"""Weights on disk, looked at without reading a tensor: safetensors headers, and what is wrong with them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from backend.modelref import bad_model

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MOST_HEADER_BYTES = 100_000_000  # the format's own limit
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Entry:
    """One tensor as its file's header describes it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def read_entries(folder: Path) -> dict[str, Entry]:
    """Every tensor of a model's folder by its name; all files are checked against their headers.

    Raises:
        RecipeError: when there are no safetensors, a file is missing or cut short, or a header cannot be read.
    """
    entries: dict[str, Entry] = {}
    for file in _weight_files(folder):
        entries |= _read_file(file)
    return entries


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.exists():
        return _indexed_files(folder, index)
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickled = next((path for pattern in _PICKLED for path in sorted(folder.glob(pattern))), None)
    if pickled is None:
        remedy = "Put model.safetensors beside config.json."
        raise bad_model(folder.name, "a folder with *.safetensors files", remedy)
    allowed = "weights in safetensors files: pickled ones can run code while they load"
    remedy = "Convert them to safetensors: save_pretrained of transformers does, on a machine that you can spare."
    raise bad_model(f"{folder.name}/{pickled.name}", allowed, remedy)


def _indexed_files(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise bad_model(f"{folder.name}/{index.name}", "an index of weight files", "Download the file again.") from None
    for name in names:
        if not (folder / name).exists():
            raise bad_model(f"{folder.name}/{name}", "every file that the index names", "Download the missing file.")
    return [folder / name for name in names]


def _read_file(file: Path) -> dict[str, Entry]:
    """Header of one file: 8 bytes of length, JSON, then the tensors at the offsets that the JSON states."""
    shown = f"{file.parent.name}/{file.name}"
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, _MOST_HEADER_BYTES):
            raise _cut(shown, f"{size:,} bytes, and no whole header")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        entries = {name: Entry(item["dtype"], tuple(map(int, item["shape"]))) for name, item in header.items()}
        need = 8 + length + max((int(item["data_offsets"][1]) for item in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise bad_model(shown, "a safetensors file", "Its header cannot be read: download or save it again.") from None
    if size < need:
        raise _cut(shown, f"{size:,} of {need:,} bytes")
    return entries


def _cut(shown: str, found: str) -> ValueError:
    remedy = "It was cut short: download or save it again."
    return bad_model(f"{shown} ({found})", "a whole safetensors file", remedy)
