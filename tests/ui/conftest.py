"""The page under test: Streamlit's AppTest on the real app, with a journal of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from tests.ui import staged, staged_inspection

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # staged.py


@pytest.fixture
def journal(home: Path) -> Journal:
    """The journal that the page will open."""
    kept = Journal()
    kept.beat("a worker", 1)
    return kept


@pytest.fixture
def open_bench(journal: Journal) -> Callable[..., AppTest]:
    """Opens the Bench; keyword arguments are the address's parameters."""

    def open_page(**params: str) -> AppTest:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
        for name, value in params.items():
            app.query_params[name] = value
        return app.run()

    return open_page


@pytest.fixture
def open_at(journal: Journal) -> Callable[[str], Callable[..., AppTest]]:
    """What opens the page of a name; keyword arguments are the address's parameters."""

    def opens(page: str) -> Callable[..., AppTest]:
        def open_page(**params: str) -> AppTest:
            app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
            for name, value in params.items():
                app.query_params[name] = value
            return app.switch_page(f"pages/{page}.py").run()

        return open_page

    return opens


@pytest.fixture
def inspection(journal: Journal) -> int:
    """An inspection of a race, both at their end."""
    race = staged.race().model_dump(mode="json")
    number = journal.submit("race", race)
    staged.play(journal, number, staged.race())
    job = journal.submit("inspect", {"race": race, "job": number})
    staged_inspection.play(journal, job, number)
    return job


@pytest.fixture
def open_page(inspection: int, open_at: Callable[[str], Callable[..., AppTest]]) -> Callable[[], AppTest]:
    """Opens that inspection."""

    return lambda: open_at("inspect")(inspect=str(inspection))
