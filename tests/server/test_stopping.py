"""Two servers on one port, a key, and a server that is told to stop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from benchmarks._served import Served


def test_a_server_with_a_key_from_its_start_to_its_end(serve: Callable[..., Served], tiny_folder: Path) -> None:
    one = serve(str(tiny_folder), "--name", "tiny", HEADWAY_API_KEY="right")
    assert [model.id for model in one.client("right").models.list()] == ["tiny"]
    with pytest.raises(openai.AuthenticationError):
        one.client("wrong").models.list()
    port = one.url.rsplit(":", 1)[1].removesuffix("/v1")
    command = [sys.executable, "-m", "backend", "serve", str(tiny_folder), "--port", port]
    other = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert other.returncode == 2
    assert "Another program listens there" in other.stderr
    assert one.stop() == 0
