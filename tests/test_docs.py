"""The generated parts of README.md, and the commands and files that the documents name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.checks.docs import README, regenerated, techniques_table
from backend.recipe.switch import all_switches

ROOT = Path(__file__).resolve().parents[1]
TEXT = README.read_text(encoding="utf-8")


def test_the_generated_parts_are_up_to_date() -> None:
    assert regenerated(TEXT) == TEXT, "make docs"


def test_every_switch_has_its_row_and_simulated_ones_say_so() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in techniques_table().splitlines()[2:]}
    assert list(rows) == list(all_switches())
    for kind, switch in all_switches().items():
        assert switch.summary in rows[kind]
        assert ("simulated`" in rows[kind]) == switch.simulated


def test_missing_markers_are_an_error() -> None:
    with pytest.raises(ValueError, match="techniques:begin"):
        regenerated("no markers here")


def test_make_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for words in re.findall(r"`?make ((?:[a-z]+ ?)+)", TEXT) for word in words.split()}
    assert {"run", "test", "docs", "check"} <= named & targets
    assert named & {"run", "test", "check", "bench", "gemma", "models", "docs", "help"} <= targets


@pytest.mark.parametrize(
    "document", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
)
def test_files_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    named = set(re.findall(r"`((?:backend|tests|docs|pages|benchmarks)/[\w./-]+)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
