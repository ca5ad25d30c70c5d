"""Texts of other people's making, shown as text: what markdown would read as markup is escaped."""

from __future__ import annotations

import re

_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")


def plain(text: str) -> str:
    """The text with every character escaped that markdown or Streamlit's directives give a meaning."""
    return _MARKS.sub(r"\\\1", text)


def short(text: str, most: int = 80) -> str:
    """One line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
