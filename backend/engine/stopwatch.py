"""The stopwatch: what a lane does for the measurement, whole requests and where one step's time goes."""

from __future__ import annotations

import gc
import time
from typing import Any

from backend.engine.asks import Ask, asks
from backend.engine.breakdown import breakdown, plain_step_s
from backend.engine.decode import Decoder
from backend.engine.memory import MemoryMeter
from backend.engine.wake import wake
from backend.recipe.race import Measure, Race
from backend.techniques.base import Subject
from backend.techniques.quantize.counting import weight_bytes

# After a turn the first step took 10 to 17% longer and the tenth still 2%, whatever was in the caches: a core that has
# rested for the 10 ms between two turns takes some 50 ms to come back to its speed.
WAKE_S = 0.06
USUAL_S = Measure().budget_s  # who wants to spend less on measuring has less spent on a step's parts as well


class Stopwatch:
    """Measures one lane. Its methods are verbs of the lane."""

    def __init__(
        self, subject: Subject, race: Race, prompt: list[int], held_out: list[int], meter: MemoryMeter
    ) -> None:
        self._subject, self._race, self._prompt, self._meter = subject, race, prompt, meter
        self.asks: list[Ask] = asks(subject, race, prompt, held_out)
        self._weights_bytes: int | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest request, its prompt included."""
        return max(len(ask.ids) + ask.output_tokens(self._race.measure.tokens) for ask in self.asks)

    def wake(self) -> None:
        """After another lane has had its turn: alone, a lane would never pay for that, so neither does its clock."""
        if self._weights_bytes is None:
            self._weights_bytes = weight_bytes(self._subject.model)
        wake(self._subject, self._weights_bytes, self._prompt[-1], WAKE_S)

    def prompt_set(self, tokens: int) -> dict[str, Any]:
        """What is asked, one entry a prompt, when `tokens` is the usual length of an answer."""
        return {"prompts": [ask.facts(tokens) for ask in self.asks]}

    def request(self, tokens: int, prompt: int = 0) -> dict[str, Any]:
        """One whole request: when each token was out, in seconds since it began; the peak of memory, in bytes."""
        ask = self.asks[prompt]
        wanted = ask.output_tokens(tokens)
        self.wake()
        decoder = Decoder(self._subject, self._race.sampling, self._race.seed)
        emitted_s: list[float] = []
        gc.collect()  # what other verbs left behind must not be collected on this request's time
        self._meter.start_peak()
        started = time.perf_counter()
        decoder.start(ask.ids, room=wanted)
        emitted_s.append(time.perf_counter() - started)
        while len(emitted_s) < wanted:
            count = len(decoder.step())
            emitted_s += [time.perf_counter() - started] * count
        return {
            "prompt": prompt,
            "kind": ask.kind,
            "prompt_tokens": len(ask.ids),
            "output_tokens": wanted,
            "ttft_s": emitted_s[0],
            "emitted_s": emitted_s[:wanted],
            "peak_bytes": self._meter.peak_bytes,
        }

    def breakdown(self) -> dict[str, Any]:
        """Where a step's time goes, and a plain step's time where a proposer is on."""
        facts = breakdown(self._subject, self._prompt, min(1.0, self._race.measure.budget_s / USUAL_S))
        if self._subject.plan.proposer:
            facts["plain_step_s"] = plain_step_s(self._subject, self._prompt)
        return facts
