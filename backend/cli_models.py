"""`python -m backend models`: what can be raced here, how large it is, and whether it is on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from backend.catalog import menu, model_facts, resolve
from backend.fetched import FETCHED
from backend.forecast import precisions
from backend.recipe.base import RecipeError

BITS = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4}


def rows() -> list[dict[str, Any]]:
    """Every model of the menu, with its parameters and bytes per precision where its config can be read."""
    return [_row(name, title, available) for name, title, available in menu()]


def _row(name: str, title: str, available: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "title": title, "available": available}
    if not available:
        return row | {"note": f"python -m backend {name} fetches it" if name in FETCHED else "make models trains it"}
    try:
        facts = model_facts(resolve(name))
    except RecipeError as error:
        return row | {"available": False, "note": str(error)}
    if facts.held_as:
        note = ", ".join(f"{held / 1e6:,.0f} MB {name}" for name, held in precisions(facts).items())
        return row | {"parameters": facts.parameters, "context": facts.context, "note": note}
    note = "speed and memory only" if facts.random_weights else ""
    sizes = {f"{precision}_bytes": facts.parameters * bits // 8 for precision, bits in BITS.items()}
    return row | {"parameters": facts.parameters, "context": facts.context, **sizes, "note": note}


def table(found: list[dict[str, Any]]) -> str:
    """The rows in columns; sizes are those of all weights at that precision, in 10^6 bytes."""
    lines = [("name", "title", "parameters", *(f"{name} MB" for name in BITS), "here", "note")]
    for row in found:
        parameters = f"{row['parameters'] / 1e6:,.1f}M" if "parameters" in row else "-"
        sizes = [f"{row[f'{n}_bytes'] / 1e6:,.0f}" if f"{n}_bytes" in row else "-" for n in BITS]
        lines.append((row["name"], row["title"], parameters, *sizes, "yes" if row["available"] else "no", row["note"]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    right = range(2, 3 + len(BITS))
    cells = [
        [text.rjust(width) if column in right else text.ljust(width) for column, (text, width) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    return "\n".join("  ".join(line).rstrip() for line in cells)


def main() -> int:
    """List the models that can be raced, with parameters, size per precision and whether they are here."""
    parser = argparse.ArgumentParser(
        prog="python -m backend models",
        description=main.__doc__,
        epilog="Sizes are those of all weights at that precision. Also possible wherever a model is asked for: "
        "a Hub id, a folder of safetensors, a GGUF file.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    arguments = parser.parse_args()
    found = rows()
    print(json.dumps(found, indent=2) if arguments.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
