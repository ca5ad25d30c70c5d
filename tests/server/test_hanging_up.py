"""Many clients, some of whom leave: slots and blocks come back, and those who stay get the answers they get alone."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest
from openai import OpenAI

from benchmarks._served import Served
from benchmarks._swarm import Swarm

PROMPTS = ["Once there was", "Anna took the lantern in the harbor.", "The key is"]
CANCELLED = 'headway_finished_total{reason="cancelled"}'


def ended(metrics: dict[str, float]) -> float:
    return sum(value for name, value in metrics.items() if name.startswith("headway_finished_total{"))


def test_a_swarm_leaves_nothing_behind(tiny: Served) -> None:
    before = tiny.settled()
    swarm = Swarm(tiny, "tiny", PROMPTS, tokens=12, long=900)
    swarm.run(requests=60, clients=15)
    after = tiny.settled()
    assert not swarm.tally.wrong
    assert (swarm.tally.right, swarm.tally.hung_up) == (40, 20)
    assert after[CANCELLED] - before.get(CANCELLED, 0) >= 10  # a quick machine has ended some before their client left
    assert ended(after) - ended(before) == len(PROMPTS) + 60
    for name in ("open_requests", "running_requests", "waiting_requests", "kv_blocks_used"):
        assert after[f"headway_{name}"] == 0


def test_who_leaves_before_a_whole_answer_frees_its_slot(tiny: Served, client: OpenAI) -> None:
    before = tiny.settled()
    asked: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 900, "extra_body": {"ignore_eos": True}}
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.15).completions.create(**asked)
    after = tiny.settled()
    assert after[CANCELLED] - before.get(CANCELLED, 0) == 1
    assert after["headway_kv_blocks_used"] == 0


def test_others_are_heard_while_a_text_is_written(tiny: Served, client: OpenAI) -> None:
    with client.completions.create(model="tiny", prompt="Once", max_tokens=300, stream=True) as stream:
        next(iter(stream))
        began = time.perf_counter()
        assert tiny.metrics()["headway_open_requests"] == 1
        assert time.perf_counter() - began < 5
