"""Who proposed a token, by the number that a journal holds for it."""

from __future__ import annotations

SOURCES = ("model", "draft", "lookup", "layers")
NAMES = {
    "model": "the model itself",
    "draft": "a draft model",
    "lookup": "a copy of earlier text",
    "layers": "some of its own layers",
}


def source_code(source: str) -> int:
    """The number of a source; 1 stood for any guess in journals of the first version."""
    return SOURCES.index(source) if source in SOURCES else 1


def source_name(code: int) -> str:
    """A source in words."""
    return NAMES[SOURCES[code]] if 0 <= code < len(SOURCES) else "a guess"
