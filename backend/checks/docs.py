"""`python -m backend.checks.docs [--write]`: the generated parts of README.md, and whether they are up to date.

A part stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from backend.recipe.lesson import all_lessons
from backend.recipe.method import all_methods
from backend.recipe.race import all_presets
from backend.recipe.serving import serve_presets
from backend.recipe.switch import all_switches

README = Path(__file__).resolve().parents[2] / "README.md"


def techniques_table() -> str:
    """Every switch that a recipe may hold, in pipeline order, as a Markdown table."""
    lines = ["| kind | switch | what it does and costs | source |", "| --- | --- | --- | --- |"]
    for kind, switch in all_switches().items():
        tag = " (quality only: speed `simulated`)" if switch.simulated else ""
        cells = (f"`{kind}`", switch.title, switch.summary + tag, switch.source or "-")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def presets_table() -> str:
    """Every preset of the Bench with what to look at, as a Markdown table."""
    return _presets((name, one.race.model, one.look_at) for name, one in all_presets().items())


def serve_presets_table() -> str:
    """Every preset of the Serve page, likewise."""
    return _presets((name, one.serving.model, one.look_at) for name, one in serve_presets().items())


def _presets(found: Iterable[tuple[str, str, str]]) -> str:
    lines = ["| preset | model | look at |", "| --- | --- | --- |"]
    for name, model, look_at in found:
        cells = (f"`{name}`", model, look_at)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def train_presets_table() -> str:
    """Every preset of the Train page, likewise."""
    return _presets((name, one.training.model, one.look_at) for name, one in all_lessons().items())


def methods_table() -> str:
    """Every training method, as a Markdown table."""
    lines = ["| kind | method | what it does and costs | source |", "| --- | --- | --- | --- |"]
    for kind, method in all_methods().items():
        cells = (f"`{kind}`", method.title, method.summary, method.source or "-")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


PARTS = {
    "techniques": techniques_table,
    "methods": methods_table,
    "presets": presets_table,
    "serve-presets": serve_presets_table,
    "train-presets": train_presets_table,
}


def regenerated(text: str) -> str:
    """The text with every generated part made anew.

    Raises:
        ValueError: when the markers of a part are missing.
    """
    return filled(text, {name: make() for name, make in PARTS.items()})


def filled(text: str, parts: Mapping[str, str]) -> str:
    """The text with these parts between their markers.

    Raises:
        ValueError: when the markers of a part are missing.
    """
    for name, made in parts.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the markers {begin} and {end} are missing")
        text = f"{before}{begin}\n{made}\n{end}{after}"
    return text


def main() -> int:
    """Check the generated parts of README.md, or write them."""
    parser = argparse.ArgumentParser(prog="python -m backend.checks.docs", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="write what has changed")
    arguments = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    wanted = regenerated(text)
    if text == wanted:
        print("docs: the generated parts of README.md are up to date")
        return 0
    if arguments.write:
        README.write_text(wanted, encoding="utf-8")
        print("docs: README.md written")
        return 0
    print("docs: the generated parts of README.md are out of date: make docs (python -m backend.checks.docs --write)")
    return 1


if __name__ == "__main__":
    sys.exit(main())
