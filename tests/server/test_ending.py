"""A server with a key from its start to its end, and how one ends whose model dies or never was."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from benchmarks._served import Served

LONG: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 600, "extra_body": {"ignore_eos": True}}


def test_a_server_with_a_key_from_its_start_to_its_end(serve: Callable[..., Served], tiny_folder: Path) -> None:
    """Another on its port is refused; told to stop, it finishes the answer that has begun and begins no other."""
    one = serve(str(tiny_folder), "--name", "tiny", HEADWAY_API_KEY="right")
    client = one.client("right")
    assert [model.id for model in client.models.list()] == ["tiny"]
    with pytest.raises(openai.AuthenticationError):
        one.client("wrong").models.list()
    port = one.url.rsplit(":", 1)[1].removesuffix("/v1")
    command = [sys.executable, "-m", "backend", "serve", str(tiny_folder), "--port", port]
    other = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert other.returncode == 2
    assert "Another program listens there" in other.stderr
    with client.completions.create(**LONG, stream=True) as stream:
        pieces = iter(stream)
        next(pieces)
        one.process.send_signal(signal.SIGINT)
        last = list(pieces)[-1]
    assert last.choices[0].finish_reason == "length"
    assert one.process.wait(20) == 0
    with pytest.raises(openai.APIConnectionError):
        client.completions.create(**LONG)


def test_a_model_that_dies_is_told_to_who_waits(serve: Callable[..., Served], tiny_folder: Path) -> None:
    one = serve(str(tiny_folder), "--name", "tiny")
    models = [
        child for child in psutil.Process(one.process.pid).children() if "spawn_main" in " ".join(child.cmdline())
    ]
    with one.client().completions.create(**LONG, stream=True) as stream:
        pieces = iter(stream)
        next(pieces)
        models[0].kill()
        with pytest.raises(openai.APIError, match="The model's process has ended"):
            list(pieces)
    assert one.process.wait(20) == 3


def test_what_cannot_be_served_ends_before_it_listens(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="said ''"):
        Served(str(tmp_path / "nothing"))
