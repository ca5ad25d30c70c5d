"""Arrivals: which requests a load holds, and when each of them comes."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.serving import Load, Serving
from backend.serving.tracefile import Arrival, read_trace


def all_arrivals(load: Load, seed: int) -> list[Arrival]:
    """Every request of a load, in order; equal seeds give equal loads. In a closed loop `at_s` is 0 and says nothing.

    Raises:
        RecipeError: for a trace that cannot be read.
    """
    if load.arrivals == "trace":
        return read_trace(Path(load.trace).expanduser())
    chance = Random(seed)
    found, clock = [], 0.0
    for number in range(load.requests):
        if load.arrivals == "poisson":
            clock += chance.expovariate(load.rate_per_s)
        elif load.arrivals == "burst":
            clock = number // load.burst * load.every_s
        prompt = load.shared_prefix + _length(chance, load.prompt_min, load.prompt_max)
        found.append(Arrival(clock, prompt, _length(chance, load.output_min, load.output_max)))
    return found


def longest_of(arrivals: list[Arrival]) -> int:
    """Tokens of prompt and answer together, at most."""
    return max(one.prompt_tokens + one.output_tokens for one in arrivals)


def check_load(asked: Serving, facts: ModelFacts) -> None:
    """Refuse what could never be served, before a model is loaded; for a load from a file that file is read.

    Raises:
        RecipeError: see `Serving.check`; and for a file that cannot be read.
    """
    asked.check(facts)
    if asked.load.arrivals != "trace":
        return
    longest = longest_of(all_arrivals(asked.load, asked.seed))
    if longest > facts.context:
        allowed = f"at most {facts.context} tokens of prompt and answer together, the context"
        raise RecipeError("load.trace", f"a request of {longest} tokens", allowed, "Shorten the longest requests.")
    for name, lane in asked.lanes:
        lane.limits.check(f"{name}.limits", longest)


def _length(chance: Random, least: int, most: int) -> int:
    """Even on a logarithmic scale, both ends included."""
    drawn = math.exp(chance.uniform(math.log(least), math.log(most + 1)))
    return max(least, min(most, int(drawn)))


class Arriving:
    """Gives out a load as its clock goes on: by the times of its arrivals, or to clients as they become free."""

    def __init__(self, load: Load, arrivals: list[Arrival]) -> None:
        self.total = len(arrivals)
        self._left = list(reversed(arrivals))
        self._closed = load.arrivals == "closed"
        self._asking = load.clients if self._closed else 0  # clients that wait for no answer
        self._since = [0.0] * self._asking  # when each of them became free

    def due(self, clock: float) -> list[Arrival]:
        """Those that have come by now; in a closed loop at the moment at which their client became free."""
        found = []
        while self._left and (at := self.next_s) is not None and at <= clock:
            one = self._left.pop()
            if self._closed:
                one = Arrival(self._since.pop(0), one.prompt_tokens, one.output_tokens)
            found.append(one)
        return found

    def answered(self, clock: float) -> None:
        """A request has ended: its client may ask again."""
        if self._closed:
            self._since.append(clock)

    @property
    def next_s(self) -> float | None:
        """When the next one comes; None where none will, or only once another has been answered."""
        if not self._left:
            return None
        if self._closed:
            return self._since[0] if self._since else None
        return self._left[-1].at_s
