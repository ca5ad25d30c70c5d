"""Traces of real traffic: when requests came and how long they were, from a file."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.recipe.base import RecipeError

MOST = 5000  # requests of a trace
COLUMNS = "arrival_s, prompt_tokens, output_tokens"
MOONCAKE = ("timestamp", "input_length", "output_length")  # milliseconds (Qin et al. 2024, the traces beside the paper)


@dataclass(frozen=True)
class Arrival:
    """One request to come: seconds on the lane clock, and its lengths in tokens."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


def read_trace(path: Path) -> list[Arrival]:
    """The arrivals of a file, in order; the first comes at 0.

    CSV with the columns arrival_s, prompt_tokens and output_tokens, or JSON lines with these keys or with those of
    the Mooncake traces.

    Raises:
        RecipeError: for a file that cannot be read, naming the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(path.name, "a text file that can be read", f"Correct the path: {error}.") from None
    rows = _lines(path, text) if path.suffix in (".jsonl", ".json") else _columns(path, text)
    if not 0 < len(rows) <= MOST:
        raise _bad(f"{path.name}, {len(rows):,} requests", f"1 to {MOST:,} requests", "Cut the file.")
    start = min(row.at_s for row in rows)
    moved = [Arrival(row.at_s - start, row.prompt_tokens, row.output_tokens) for row in rows]
    return sorted(moved, key=lambda row: row.at_s)


def _columns(path: Path, text: str) -> list[Arrival]:
    reader = csv.DictReader(text.splitlines())
    return [_arrival(path, number, row, 1.0, COLUMNS.split(", ")) for number, row in enumerate(reader, 2)]


def _lines(path: Path, text: str) -> list[Arrival]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _bad(f"{path.name}, line {number}", "one JSON object a line", f"Correct it: {error}.") from None
        mooncake = isinstance(row, dict) and MOONCAKE[0] in row
        found.append(
            _arrival(path, number, row, 0.001 if mooncake else 1.0, MOONCAKE if mooncake else COLUMNS.split(", "))
        )
    return found


def _arrival(path: Path, number: int, row: Any, unit: float, names: Any) -> Arrival:
    try:
        at, prompt, output = (float(row[name]) for name in names)
        found = Arrival(at * unit, int(prompt), int(output))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _bad(f"{path.name}, line {number}", f"numbers in {', '.join(names)}", "Correct the line.") from None
    if not (0 <= found.at_s < 1e9 and found.prompt_tokens > 0 and found.output_tokens > 0):
        raise _bad(f"{path.name}, line {number}", "a time of 0 or later, and lengths above 0", "Correct the line.")
    return found


def _bad(value: str, allowed: str, remedy: str) -> RecipeError:
    return RecipeError("load.trace", value, allowed, remedy)
