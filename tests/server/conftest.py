"""Servers in processes of their own, as a person starts them, and OpenAI's client to ask them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from benchmarks._served import Served


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., Served]]:
    """Starts servers; they end with the session, where the test does not end them itself."""
    started: list[Served] = []

    def start(*arguments: str, **environment: str) -> Served:
        started.append(Served(*arguments, **environment))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def tiny(serve: Callable[..., Served], tiny_folder: Path) -> Served:
    """A seeded model of two layers, with the plain chat template, asked by most tests."""
    return serve(str(tiny_folder), "--name", "tiny", "--chat-template", "plain")


@pytest.fixture(scope="session")
def client(tiny: Served) -> OpenAI:
    """OpenAI's client of that server."""
    return tiny.client()
