"""What the product imports is what requirements.txt pins."""

from __future__ import annotations

import re
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

from backend.checks.imports import imports

ROOT = Path(__file__).resolve().parents[1]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    found = [re.match(r"([\w-]+)==(\S+)", line) for line in lines if line and line[0] not in "#-"]
    return {normal(match[1]): match[2] for match in found}


def test_every_library_that_is_imported_is_pinned() -> None:
    ours = {"backend", "app", "pages"}
    tops = {step.target.split(".")[0] for step in imports(ROOT)} - sys.stdlib_module_names - ours
    distributions = packages_distributions()
    needed = {normal(distributions[top][0]) for top in tops}
    assert {"torch", "streamlit", "pydantic"} <= needed
    assert needed - set(pins("requirements.txt")) == set()


def test_the_pins_are_what_these_tests_ran_on() -> None:
    for name, pinned in (pins("requirements.txt") | pins("requirements-dev.txt")).items():
        assert version(name).split("+")[0] == pinned, name


def test_every_pin_says_why_it_is_there() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if "==" in line]
        assert [line for line in lines[1:] if "#" not in line and not line.startswith("pytest==")] == []
