"""What the tests of quantization share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _quick_collections() -> Iterator[None]:
    """Every technique collects garbage at its end; what was imported before need not be searched each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
