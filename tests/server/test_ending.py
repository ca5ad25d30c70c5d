"""How a server ends: begun answers are finished, and a model that dies is told of."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from benchmarks._served import Served

LONG: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 600, "extra_body": {"ignore_eos": True}}


def test_a_begun_answer_is_finished_and_nothing_new_begins(serve: Callable[..., Served], tiny_folder: Path) -> None:
    one = serve(str(tiny_folder), "--name", "tiny")
    client = one.client()
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
