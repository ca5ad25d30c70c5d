"""An engine without batches: the plain decoder's requests in turn, for recipes that no batch can run."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from backend.engine.batch.engine import Finished, Progress
from backend.engine.decode import Decoder, Emission
from backend.recipe.base import RecipeError
from backend.recipe.race import Sampling
from backend.serving.request import Request
from backend.techniques.base import Subject


@dataclass
class _Running:
    """A request with the decoder that writes it."""

    request: Request
    decoder: Decoder
    written: int = 0


class SequentialEngine:
    """Requests in the order in which they came, a step each in turn; every one computes alone.

    Where the recipe has a proposer or a compiled step, whose state is one request's only, they go one after the other.
    """

    def __init__(self, subject: Subject, slots: int) -> None:
        alone = subject.plan.proposer is not None or subject.plan.forward is not None
        self.slots = 1 if alone else slots
        self._subject = subject
        self._waiting: deque[Request] = deque()
        self._running: deque[_Running] = deque()
        self._cancelled: list[int] = []

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            RecipeError: for one that the context does not hold.
        """
        context = self._subject.facts.context
        if request.total > context:
            raise RecipeError("request", f"{request.total} tokens", f"at most {context}", "Shorten it.")
        self._waiting.append(request)

    def cancel(self, id: int) -> None:
        """Give up a request; the next step reports it as cancelled. An unknown or ended one is left alone."""
        known = [request.id for request in self._waiting] + [running.request.id for running in self._running]
        if id in known and id not in self._cancelled:
            self._cancelled.append(id)
            self._waiting = deque(request for request in self._waiting if request.id != id)
            self._running = deque(running for running in self._running if running.request.id != id)

    def step(self) -> list[Progress]:
        """Read the next prompt, or do one round of the decoder whose turn it is."""
        told = [Progress(id, None, "cancelled") for id in self._cancelled]
        self._cancelled.clear()
        if self._waiting and len(self._running) < self.slots:
            request = self._waiting.popleft()
            running = _Running(request, Decoder(self._subject, request.sampling or Sampling(), request.seed))
            first = running.decoder.start(list(request.prompt), request.max_new_tokens)
            return told + self._told(running, [first])
        if self._running:
            running = self._running.popleft()
            return told + self._told(running, running.decoder.step())
        return told

    def _told(self, running: _Running, emitted: list[Emission]) -> list[Progress]:
        """What the emissions are to the request, up to its end; one that has not ended has its turn again."""
        told: list[Progress] = []
        for emission in emitted:
            running.written += 1
            end = _end(running, emission.token)
            told.append(Progress(running.request.id, emission.token, end, emission.logits))
            if end:
                return told
        self._running.append(running)
        return told

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not (self._waiting or self._running or self._cancelled)

    def stats(self) -> dict[str, Any]:
        """Plain data: queue and running; there are no blocks."""
        return {"queue": len(self._waiting), "running": len(self._running), "batch": min(1, len(self._running))}


def _end(running: _Running, token: int) -> Finished:
    if token in running.request.stop_ids:
        return "stop"
    return "length" if running.written >= running.request.max_new_tokens else None
