"""`python -m backend models`: every model of the menu, with sizes that follow from its parameters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from backend.catalog import menu
from backend.cli_models import rows, table

ROOT = Path(__file__).resolve().parents[1]


def test_every_model_of_the_menu_has_its_row(home: Path) -> None:
    found = {row["name"]: row for row in rows()}
    assert list(found) == [name for name, _, _ in menu()]
    shapes = [row for name, row in found.items() if name.startswith("shape:")]
    assert shapes
    for row in shapes:
        assert row["available"]
        assert row["fp32_bytes"] == 4 * row["parameters"] == 8 * row["int4_bytes"]
        assert row["note"] == "speed and memory only"


def test_what_is_not_here_says_how_to_get_it(home: Path) -> None:
    gemma = next(row for row in rows() if row["name"] == "gemma")
    assert not gemma["available"]
    assert "python -m backend gemma" in gemma["note"]
    assert "parameters" not in gemma


def test_the_table_is_aligned_and_the_json_is_the_same(home: Path) -> None:
    lines = table(rows()).splitlines()
    assert len(lines) == len(menu()) + 1
    column = lines[0].index("here")
    assert {line[column:].split()[0] for line in lines[1:]} <= {"yes", "no"}
    command = [sys.executable, "-m", "backend", "models", "--json"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert json.loads(printed) == rows()
