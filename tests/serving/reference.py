"""A plain reference of continuous batching without preemption: one request at a time is asked what it may do."""

from __future__ import annotations

from backend.recipe.serving import Limits
from backend.serving.request import Request


def steps(requests: list[Request], limits: Limits, blocks: int) -> list[dict[int, int]]:
    """Tokens that each request is fed, step by step, when whole answers are reserved. All have come at the start."""
    waiting, running, told = list(requests), [], []
    cached = {one.id: 0 for one in requests}
    known = {one.id: len(one.prompt) for one in requests}
    while waiting or running:
        while waiting and len(running) < limits.slots and _held([*running, waiting[0]], limits) <= blocks:
            running.append(waiting.pop(0))
        left, fed = limits.chunk_tokens, {}
        for one in running:
            count = known[one.id] - cached[one.id]
            if count > 1:
                count = min(count, left)
                left -= count
            if count:
                fed[one.id] = count
        for id, count in fed.items():
            cached[id] += count
            known[id] += cached[id] == known[id]
        running = [one for one in running if known[one.id] < one.total]
        told.append(fed)
    return told


def _held(requests: list[Request], limits: Limits) -> int:
    return sum(-(-one.total // limits.block_tokens) for one in requests)
