"""The examples of docs/endpoint.md do what they are there for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks._served import Served

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "endpoint.md").read_text(encoding="utf-8")
SHOWN = {
    "text_completion": ("bash", 0),
    "data: [DONE]": ("bash", 1),
    "headway_kv_blocks_used": ("bash", 2),
    "CompletionUsage": ("python", 0),
}


@pytest.fixture(scope="module")
def storyteller(serve: Callable[..., Served]) -> Served:
    """The model of the examples."""
    return serve("storyteller", "--chat-template", "plain")


@pytest.mark.parametrize("shown", SHOWN)
def test_an_example(storyteller: Served, shown: str) -> None:
    language, place = SHOWN[shown]
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")
    code = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[place]
    code = code.replace("http://127.0.0.1:8000/v1", storyteller.url)
    code = code.replace("http://127.0.0.1:8000", storyteller.url.removesuffix("/v1"))
    command = ["bash", "-ec", code] if language == "bash" else [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert '"error"' not in done.stdout
