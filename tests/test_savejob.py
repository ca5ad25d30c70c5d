"""The job that saves a model: the process that it starts, its progress, its card, and what is left when it is ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.catalog import menu, model_facts, resolve
from backend.journal import Job, Journal
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.replay import RaceView
from backend.saved import MARKER, models_folder
from backend.savejob import SaveOrder, save, write_told
from backend.watch import Cancelled

SAY = "import sys; from pathlib import Path; from backend.savejob import write_told; "


def order(model: str = "storyteller", **fields: object) -> SaveOrder:
    race = {"model": model, "prompt": "Once " * 9000, "variants": [{"switches": {"int8_weight_only": {}}}]}
    return SaveOrder.read({"race": race, "lane": "A", "name": "mine"} | fields)


def doing(script: str):
    """A command that runs this in the place of the saving."""
    return lambda order, told: [sys.executable, "-c", SAY + script, str(told), str(models_folder())]


@pytest.mark.parametrize(
    ("fields", "field"), [({"lane": "C"}, "lane"), ({"name": "a/b"}, "name"), ({"name": "gemma"}, "name")]
)
def test_what_cannot_be_is_refused_before_anything_starts(home: Path, fields: dict[str, str], field: str) -> None:
    with pytest.raises(RecipeError) as caught:
        save(order(**fields), command=doing("raise SystemExit(3)"))
    assert caught.value.field == field


def test_progress_is_heard(home: Path) -> None:
    heard: list[tuple[float, str]] = []
    script = "import time; write_told(Path(sys.argv[1]), share=0.5, text='Half'); time.sleep(1)"
    save(order(), progress=lambda share, text: heard.append((share, text)), command=doing(script))
    assert heard == [(0.5, "Half"), (1.0, "Saved")]


def test_its_card_is_the_jobs_card(home: Path) -> None:
    card = RecipeError("out", "full", "a place", "Free some.").card()
    with pytest.raises(RecipeError) as caught:
        save(order(), command=doing(f"write_told(Path(sys.argv[1]), card={card!r}); sys.exit(2)"))
    assert caught.value.card() == card


def test_a_process_that_breaks_is_told_of_in_its_last_words(home: Path) -> None:
    with pytest.raises(RecipeError, match="no memory") as caught:
        save(order(), command=doing("raise MemoryError('no memory')"))
    assert caught.value.field == "save"


def test_one_that_is_cancelled_leaves_nothing(home: Path) -> None:
    work = models_folder() / ".saving-mine-x1"
    script = "import time; (Path(sys.argv[2]) / '.saving-mine-x1').mkdir(parents=True); time.sleep(60)"
    with pytest.raises(Cancelled):
        save(order(), cancelled=work.is_dir, command=doing(script))
    assert not work.exists()


def test_told_is_whole_whenever_it_is_read(tmp_path: Path) -> None:
    write_told(tmp_path / "told.json", share=0.1, text="ä")
    write_told(tmp_path / "told.json", share=0.2, text="b")
    assert json.loads((tmp_path / "told.json").read_text()) == {"share": 0.2, "text": "b"}
    assert len(list(tmp_path.iterdir())) == 1


# Through a real worker


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    """The journal of a worker that runs."""
    process = subprocess.Popen([sys.executable, "-m", "backend.worker"], env=os.environ | {"HEADWAY_HOME": str(home)})
    with Journal() as kept:
        yield kept
    process.terminate()
    process.wait(20)


def ended(journal: Journal, number: int) -> Job:
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        job = journal.job(number)
        if job is not None and job.ended:
            return job
        time.sleep(0.1)
    raise TimeoutError(f"job {number}")


def test_a_worker_saves_and_the_model_stands_in_the_menu(journal: Journal, home: Path, tiny_folder: Path) -> None:
    asked = order(str(tiny_folder), job=7)
    number = journal.submit("save", asked.model_dump(mode="json"))
    assert ended(journal, number).state == "finished", RaceView().apply_all(journal.events(number)).card
    assert (home / "models" / "mine" / MARKER).is_file()
    assert "mine" in [name for name, _, _ in menu()]
    assert model_facts(resolve("mine")).packed
    assert journal.last(number, "phase").data["name"] == "saving"
    again = journal.submit("save", asked.model_dump(mode="json"))
    assert ended(journal, again).state == "failed"
    assert RaceView().apply_all(journal.events(again)).card["field"] == "name"
    assert Race.read(asked.race.model_dump(mode="json")) == asked.race
