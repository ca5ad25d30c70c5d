"""What one server counts, and what it shows of its engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import psutil

from backend.server.metrics import Counter, Gauge, Histogram, Metric, exposition
from backend.serving.talk import Began, Ended, News, Refused, Said, Stats

LOOK_S = 0.05  # between two looks at how late the event loop is
_ENGINE = {  # what engines say of themselves, where they do
    "running": ("headway_running_requests", "Texts that are being read or written."),
    "queue": ("headway_waiting_requests", "Texts that wait for a slot."),
    "batch": ("headway_batch_size", "Texts in the last step."),
    "blocks_used": ("headway_kv_blocks_used", "KV blocks that hold something."),
    "blocks_total": ("headway_kv_blocks", "KV blocks in all."),
    "prefix_blocks_used": ("headway_prefix_blocks_used", "Blocks of prompts that are kept for others."),
    "prefix_hit_rate": ("headway_prefix_hit_rate", "Share of all prompt tokens that were not computed."),
}


@dataclass
class _Timing:
    """When a text was asked for, when its first token came, and how many came with it."""

    asked_s: float
    first_s: float = 0.0
    tokens: int = 0


class Instruments:
    """The metrics of one server."""

    def __init__(self, open: Callable[[], int], ready: Callable[[], bool]) -> None:
        self.responses = Counter("headway_http_responses_total", "Responses by path and status.")
        self.finished = Counter("headway_finished_total", "Texts by how they ended; 'cancelled': the client hung up.")
        self.prompt_tokens = Counter("headway_prompt_tokens_total", "Tokens of prompts that were read.")
        self.new_tokens = Counter("headway_generation_tokens_total", "Tokens that were written.")
        self.ttft = Histogram("headway_time_to_first_token_seconds", "From the request to its first token.")
        self.tpot = Histogram("headway_time_per_output_token_seconds", "Of a text, after its first token.")
        self.e2e = Histogram("headway_request_duration_seconds", "From the request to its end.")
        self.lag = Histogram("headway_event_loop_lag_seconds", "How late the event loop came to its own timer.")
        self._stats = Stats({}, 0, 0.0, 0.0, 0)
        self._timings: dict[int, _Timing] = {}
        engine = [Gauge(name, help, partial(self._engine, key)) for key, (name, help) in _ENGINE.items()]
        self._all: list[Metric] = [
            *(self.responses, self.finished, self.prompt_tokens, self.new_tokens),
            *(self.ttft, self.tpot, self.e2e, self.lag),
            Gauge("headway_ready", "1 when the model answers.", lambda: float(ready())),
            Gauge("headway_open_requests", "Texts that the model has not ended, wanted or not.", lambda: float(open())),
            *engine,
            Gauge("headway_preemptions_total", "Texts put back.", partial(self._engine, "preemptions"), "counter"),
            Gauge(
                "headway_prefix_asked_tokens_total",
                "Prompt tokens that were looked up.",
                partial(self._engine, "prefix_asked_tokens"),
                "counter",
            ),
            Gauge(
                "headway_prefix_reused_tokens_total",
                "Of these, tokens that were not computed.",
                partial(self._engine, "prefix_reused_tokens"),
                "counter",
            ),
            Gauge("headway_engine_steps_total", "Steps of the engine.", lambda: self._stats.steps, "counter"),
            Gauge("headway_engine_step_seconds_total", "Time in them.", lambda: self._stats.step_s, "counter"),
            Gauge("headway_longest_step_seconds", "Of the last half second.", lambda: self._stats.longest_step_s),
            Gauge(
                "headway_model_resident_bytes", "Of the model's process.", lambda: self._stats.resident_bytes or None
            ),
            Gauge("headway_server_resident_bytes", "Of the server's process.", _resident),
        ]

    def _engine(self, key: str) -> float | None:
        value = self._stats.engine.get(key)
        return None if value is None else float(value)

    def asked(self, ids: Sequence[int]) -> None:
        """The clocks of these texts begin."""
        now = time.perf_counter()
        self._timings |= {id: _Timing(now) for id in ids}

    def told(self, news: News) -> None:
        """Hear from the model's process."""
        if isinstance(news, Stats):
            self._stats = news
        elif isinstance(news, Began):
            self.prompt_tokens.add(news.prompt_tokens)
        elif isinstance(news, Said) and (timing := self._timings.get(news.id)) and not timing.tokens:
            timing.first_s, timing.tokens = time.perf_counter(), news.tokens
            self.ttft.see(timing.first_s - timing.asked_s)
        elif isinstance(news, Refused):
            self._timings.pop(news.id, None)
        elif isinstance(news, Ended):
            self._ended(news)

    def _ended(self, news: Ended) -> None:
        self.finished.add(reason=news.reason)
        self.new_tokens.add(news.tokens)
        timing, now = self._timings.pop(news.id, None), time.perf_counter()
        if timing is None or news.reason == "cancelled":
            return
        self.e2e.see(now - timing.asked_s)
        if news.tokens > timing.tokens > 0:
            self.tpot.see((now - timing.first_s) / (news.tokens - timing.tokens))

    def text(self) -> str:
        """All of it for Prometheus."""
        return exposition(self._all)

    async def watch_the_loop(self) -> None:
        """See how late the event loop is, for as long as it runs: what blocks it shows here."""
        while True:
            due = time.perf_counter() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self.lag.see(max(0.0, time.perf_counter() - due))


def _resident() -> float:
    return float(psutil.Process().memory_info().rss)
