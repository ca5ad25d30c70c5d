"""What all tests share: an own state folder, tiny real models as folders, and Gemma where it can be had."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported by anything: tests run beside each other on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HOME = os.environ.get("HEADWAY_HOME")  # where fetched models are looked for, whatever home a test has given itself
_no_gemma: list[str] = []  # why the real model was not there, for the last lines of the run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, then those on the real model (long ones ahead), then those in a browser.

    So a mistake shows early, and nobody waits at the end for one long test. The browser needs the whole machine; what
    else does is marked `alone` where it stands.
    """

    def place(item: pytest.Item) -> tuple[bool, bool, bool]:
        marked = item.get_closest_marker
        return "e2e" in item.path.parts, marked("real") is not None, marked("long") is None

    items.sort(key=place)
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker("alone")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say it loudly when the real model was missing: the tests that were skipped are the ones that matter most."""
    for reason in dict.fromkeys(_no_gemma):
        terminalreporter.write_line(f"TESTS ON THE REAL MODEL DID NOT RUN: {reason}", red=True, bold=True)


@pytest.fixture(autouse=True)
def _all_cores_for_the_real_model(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests of the real model that have the machine to themselves may use all of it."""
    torch, node = sys.modules.get("torch"), request.node
    if torch is None or not (node.get_closest_marker("real") and node.get_closest_marker("alone")):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def gemma_folder() -> Path:
    """The folder of Gemma 3 270M; in CI it is fetched, elsewhere a person fetches it with `make gemma`."""
    from backend import gemma

    return fetched(gemma, "gemma", "Gemma", lambda: gemma.fetch(accepted=True))


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of MiniLM; in CI it is fetched, elsewhere a person fetches it with `make minilm`."""
    from backend import minilm

    return fetched(minilm, "minilm", "MiniLM", minilm.fetch)


def fetched(model: Any, name: str, title: str, fetch: Callable[[], Path]) -> Path:
    """The folder of a model that is fetched, looked for where the session began and not in a test's own home."""
    with pytest.MonkeyPatch.context() as patch, one_at_a_time(name):
        patch.delenv("HEADWAY_HOME", raising=False)
        if HOME is not None:
            patch.setenv("HEADWAY_HOME", HOME)
        if model.is_fetched():
            return Path(model.folder())
        if not os.environ.get("CI"):
            _skip(f"{title} is not on this machine; `make {name}` fetches it")
        try:
            return fetch()
        except model.IndexUnreachable as error:
            _skip(str(error))


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Processes that run tests beside each other go through here one after the other."""
    with (Path(tempfile.gettempdir()) / f"headway-tests-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _skip(reason: str) -> Any:
    _no_gemma.append(reason)
    pytest.skip(reason)


@pytest.fixture
def skip_real() -> Callable[[str], None]:
    """Skips a test of the real model, and has the reason said in the last lines of the run."""
    return _skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state folder of the test's own, with HEADWAY_HOME set to it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HEADWAY_HOME", str(folder))
    return folder


@pytest.fixture
def gemma_home(gemma_folder: Path, home: Path) -> Path:
    """A state folder of the test's own in which Gemma is found under its name."""
    return _home_with(home, gemma_folder)


@pytest.fixture
def minilm_home(minilm_folder: Path, home: Path) -> Path:
    """A state folder of the test's own in which MiniLM is found under its name."""
    return _home_with(home, minilm_folder)


def _home_with(home: Path, model: Path) -> Path:
    (home / "models").mkdir()
    (home / "models" / model.name).symlink_to(model, target_is_directory=True)
    return home


@pytest.fixture(scope="session")
def storyteller_tokenizer() -> Any:
    """The storyteller's tokenizer, trained afresh."""
    from backend.storyteller.tokenizer import build_tokenizer

    return build_tokenizer()


def _save_tiny(folder: Path, tokenizer: Any, seed: int, layers: int) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder_folder(tmp_path_factory: pytest.TempPathFactory, storyteller_tokenizer: Any) -> Path:
    """A seeded BERT (2 layers, hidden 64, 4 heads) with the storyteller's tokenizer, as a safetensors folder."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny-encoder"
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=-(-len(storyteller_tokenizer) // 64) * 64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.1,
    )
    BertModel(config).save_pretrained(folder)
    storyteller_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, storyteller_tokenizer: Any) -> Path:
    """A seeded Llama (2 layers, hidden 64, 4 heads) with the storyteller's tokenizer, as a safetensors folder."""
    return _save_tiny(tmp_path_factory.mktemp("models") / "tiny", storyteller_tokenizer, seed=3, layers=2)


@pytest.fixture(scope="session")
def tiny_draft_folder(tmp_path_factory: pytest.TempPathFactory, storyteller_tokenizer: Any) -> Path:
    """A smaller seeded Llama with the same vocabulary, for drafts."""
    return _save_tiny(tmp_path_factory.mktemp("models") / "tiny-draft", storyteller_tokenizer, seed=4, layers=1)
