"""Fetched models: real ones out of the Python package index, where they lie and whether they are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.journal import state_folder

MARKER = "complete.json"  # written last: a folder without it was not finished
GEMMA = "gemma"
MINILM = "minilm"


@dataclass(frozen=True)
class Fetched:
    """A model that is fetched when a person asks for it."""

    folder: str
    title: str
    remedy: str  # what to do where it is not there


FETCHED = {
    GEMMA: Fetched(
        "gemma-3-270m", "Gemma 3, 270M", "Press 'Get Gemma' on the Bench, or run `python -m backend.gemma`."
    ),
    MINILM: Fetched(
        "all-minilm-l6-v2",
        "MiniLM, 23M, a sentence encoder",
        "Press 'Get MiniLM' on the Bench, or run `python -m backend minilm`.",
    ),
}


def fetched_folder(name: str) -> Path:
    """Where a fetched model lies, whether it is there or not."""
    return state_folder() / "models" / FETCHED[name].folder


def is_fetched(name: str) -> bool:
    """Whether all of it is there."""
    return (fetched_folder(name) / MARKER).exists()
