"""Threads: torch itself says how many."""

from __future__ import annotations

import pytest
import torch

from backend.recipe.switches.runtime import Threads
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back


@pytest.mark.usefixtures("keep_threads")
def test_threads_are_set_planned_and_read_back(tiny_llama: Subject) -> None:
    torch.set_num_threads(1)
    assert not read_back(tiny_llama, Threads(count=2)).took_effect
    apply_switch(tiny_llama, Threads(count=2))
    assert torch.get_num_threads() == 2
    assert tiny_llama.plan.threads == 2
    assert read_back(tiny_llama, Threads(count=2)).took_effect


@pytest.mark.usefixtures("keep_threads")
def test_threads_lost_afterwards_are_seen(tiny_llama: Subject) -> None:
    apply_switch(tiny_llama, Threads(count=2))
    torch.set_num_threads(1)
    effect = read_back(tiny_llama, Threads(count=2))
    assert not effect.took_effect
    assert effect.facts["threads"] == 1
