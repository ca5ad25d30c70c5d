"""The server of a lane: it feeds a load to the batched engine on the lane clock. Its methods are verbs of the lane.

The clock counts the engine's own steps and jumps over the time in which nothing is to do, so that a load of an hour
takes as long as its work. Requests arrive on that clock: a slower lane sees the same load at the same times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from backend.engine.batch.engine import BatchEngine, Progress
from backend.engine.decode import Decoder
from backend.recipe.base import RecipeError
from backend.recipe.serving import Serving
from backend.serving.arrivals import Arriving, all_arrivals, longest_of
from backend.serving.request import Request
from backend.serving.tracefile import Arrival
from backend.techniques.base import Subject

SAMPLES = 40  # a slice, at most


@dataclass
class Told:
    """What one slice has to tell; see backend/serving/view.py for the meaning of the columns."""

    arrived: list[list[float]] = field(default_factory=list)
    ended: list[list[float]] = field(default_factory=list)
    spans: list[list[float]] = field(default_factory=list)
    samples: list[list[float]] = field(default_factory=list)


class Server:
    """Serves one load in one lane."""

    def __init__(self, subject: Subject, name: str, held_out: list[int], wake: Callable[[], None]) -> None:
        """`wake` runs before each slice, off the clock."""
        self._subject, self._name, self._text, self._wake = subject, name, held_out, wake

    def serve_load(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Make the engine and the requests.

        Raises:
            RecipeError: for a load that this model or memory cannot serve.
        """
        asked = Serving.read(spec)
        arrivals = all_arrivals(asked.load, asked.seed)
        self._asked, self._spread = asked, Random(asked.seed + 1)
        longest = longest_of(arrivals)
        if longest > self._subject.facts.context:
            allowed = f"at most {self._subject.facts.context} tokens of prompt and answer together, the context"
            raise RecipeError("load", f"a request of {longest} tokens", allowed, "Shorten the longest requests.")
        self._subject.longest = longest
        self._engine = BatchEngine(self._subject, dict(asked.lanes)[self._name].limits)
        self._arriving = Arriving(asked.load, arrivals)
        self._requests: dict[int, Request] = {}
        self._answers: dict[int, list[int]] = {}
        self._first: dict[int, float] = {}
        self._writes: dict[int, float] = {}  # id -> since when, in this stay
        self._open: dict[int, tuple[int, float]] = {}  # id -> slot, since when
        self._clock, self._ended = 0.0, 0
        return {"requests": len(arrivals), "blocks": self._engine.stats()["blocks_total"]}

    def serve_slice(self, budget_s: float) -> dict[str, Any]:
        """Serve for about so long on the lane clock, a step at least."""
        self._wake()
        told, deadline = Told(), self._clock + budget_s
        while self._ended < self._arriving.total:
            self._take(told)
            if self._engine.idle:
                self._clock = max(self._clock, self._arriving.next_s or self._clock)
                continue
            self._step(told)
            if self._clock >= deadline:
                break
        stride = -(-len(told.samples) // SAMPLES) or 1
        return {
            "clock": self._clock,
            "finished": self._ended == self._arriving.total,
            "arrived": told.arrived,
            "ended": told.ended,
            "spans": told.spans,
            "open": [[id, slot, since, self._writes.get(id, self._clock)] for id, (slot, since) in self._open.items()],
            "samples": told.samples[::-1][::stride][::-1],  # the newest is always among them
            "stats": self._engine.stats(),
        }

    def _take(self, told: Told) -> None:
        for one in self._arriving.due(self._clock):
            request = self._request(one)
            self._requests[request.id] = request
            self._answers[request.id] = []
            self._engine.submit(request)
            told.arrived.append([request.id, one.at_s, one.prompt_tokens, one.output_tokens])

    def _request(self, one: Arrival) -> Request:
        """Its prompt is a stretch of the held-out text from a place of its own, after the beginning that all share."""
        shared = min(self._asked.load.shared_prefix, one.prompt_tokens - 1)
        start = self._spread.randrange(len(self._text))
        number = len(self._requests)
        prompt = (*self._stretch(0, shared), *self._stretch(start, one.prompt_tokens - shared))
        seed = self._asked.seed + number
        return Request(number, prompt, one.output_tokens, one.at_s, self._asked.sampling, seed)

    def _stretch(self, start: int, tokens: int) -> list[int]:
        """Tokens of the held-out text, which begins anew at its end."""
        repeated = self._text * -(-(start + tokens) // len(self._text))
        return repeated[start : start + tokens]

    def _step(self, told: Told) -> None:
        before = self._clock
        progress = self._engine.step()
        self._clock += self._engine.step_s
        plan = self._engine.plan
        for move in plan.leaves:
            self._close(move.id, before, told)
        for move in plan.enters:
            self._open[move.id] = (move.slot, before)
            self._writes.pop(move.id, None)  # who comes back reads again
        for one in progress:
            self._hear(one, told)
        stats = self._engine.stats()
        columns = (stats["queue"], stats["running"], stats["batch"], stats["blocks_used"], plan.tokens)
        told.samples.append([self._clock, *columns])

    def _hear(self, one: Progress, told: Told) -> None:
        if one.token is not None:
            self._answers[one.id].append(one.token)
            self._first.setdefault(one.id, self._clock)
            self._writes.setdefault(one.id, self._clock)
        if one.finished:
            self._close(one.id, self._clock, told)
            request = self._requests[one.id]
            counted = len(self._answers[one.id])
            told.ended.append([one.id, request.arrival_s, self._first[one.id], self._clock, counted])
            self._arriving.answered(self._clock)
            self._ended += 1

    def _close(self, id: int, at: float, told: Told) -> None:
        slot, since = self._open.pop(id)
        told.spans.append([id, slot, since, min(self._writes.get(id, at), at), at])

    def serve_alone(self, place: int) -> dict[str, Any]:
        """Write one answer again, alone; whether it has the same tokens. Off the clock."""
        count = min(self._asked.check_alone, len(self._requests))
        number = place * len(self._requests) // max(1, count)
        request, answer = self._requests[number], self._answers[number]
        decoder = Decoder(self._subject, self._asked.sampling, request.seed)
        alone = [decoder.start(list(request.prompt), room=request.max_new_tokens).token]
        while len(alone) < len(answer):
            alone += [emission.token for emission in decoder.step()]
        pairs = zip(answer, alone, strict=False)
        first = next((spot for spot, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
        return {"request": number, "tokens": len(answer), "same": first is None, "differs_at": first}
