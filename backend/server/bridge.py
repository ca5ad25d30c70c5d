"""The model's process as the event loop sees it. Two threads carry what is said, so that the loop never waits."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal

from backend import hostprocess
from backend.server.exchange import Exchange
from backend.serving.talk import Ask, Cancel, Ended, Failed, Loading, News, Order, Question, Ready, Refused, Stats

State = Literal["loading", "ready", "failed"]
PATIENCE_S = 5.0


class Bridge:
    """Hands asks to the model, and what it answers to whoever asked. Used in the loop's thread."""

    def __init__(self, order: Order, told: Callable[[News], None] = lambda news: None) -> None:
        """`told` hears everything that comes, before it is handed on."""
        self.state: State = "loading"
        self.ready: Ready | None = None
        self.card: dict[str, str] = {}  # why it failed
        self.closing = False  # what has begun is finished, and nothing new begins
        self.ended = asyncio.Event()  # the model's process is gone
        self.loaded = asyncio.Event()
        self._order = order
        self._told = told
        self._numbers = itertools.count(1)
        self._open: dict[int, Exchange] = {}
        self._outbox: queue.SimpleQueue[Question | None] = queue.SimpleQueue()

    @property
    def open(self) -> int:
        """Texts that the model has not ended yet, wanted or not."""
        return len(self._open)

    def start(self) -> None:
        """Start the model's process and the threads."""
        self._loop = asyncio.get_running_loop()
        self._process, self._pipe = hostprocess.start(self._order)
        threading.Thread(target=self._hear, args=(self._pipe,), name="hear", daemon=True).start()
        threading.Thread(target=self._say, args=(self._pipe,), name="say", daemon=True).start()

    def number(self) -> int:
        """A number for the next ask."""
        return next(self._numbers)

    def ask(self, asks: Sequence[Ask]) -> Exchange:
        """Hand asks over; what comes for them comes through the exchange, which must be closed."""
        exchange = Exchange([ask.id for ask in asks], self._outbox.put)
        for ask in asks:
            self._open[ask.id] = exchange
            self._outbox.put(ask)
        return exchange

    def give_up(self, why: str) -> None:
        """End every exchange: its reader hears `why`."""
        for exchange in list(self._open.values()):
            exchange.lose(why)

    async def stop(self) -> None:
        """End the model's process."""
        self._outbox.put(None)
        await asyncio.to_thread(_end, self._process)

    # In threads of their own

    def _hear(self, pipe: Connection) -> None:
        while True:
            try:
                news: list[News] = pipe.recv()
            except (EOFError, OSError):
                break
            self._in_loop(self._take, news)
        self._process.join(PATIENCE_S)
        self._in_loop(self._lost)

    def _say(self, pipe: Connection) -> None:
        question: Question | None = Cancel(0)
        while question is not None:
            question = self._outbox.get()
            try:
                pipe.send(question)
            except OSError:
                return  # the hearing thread tells of it

    def _in_loop(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return  # the loop has ended, and nobody listens

    # In the loop

    def _take(self, news: list[News]) -> None:
        for one in news:
            self._told(one)
            if isinstance(one, Ready):
                self.ready, self.state = one, "ready"
                self.loaded.set()
            elif isinstance(one, Failed):
                self.card = one.card
            elif not isinstance(one, Loading | Stats):
                done = isinstance(one, Ended | Refused)
                exchange = self._open.pop(one.id, None) if done else self._open.get(one.id)
                if exchange is not None:
                    exchange.take(one)

    def _lost(self) -> None:
        self.state = "failed"
        if not self.card:
            self.card = _death(self._process.exitcode)
        self.give_up("The model's process has ended.")
        self._open.clear()
        self.loaded.set()
        self.ended.set()


def _death(code: int | None) -> dict[str, str]:
    how = f"signal {-code}" if code is not None and code < 0 else f"code {code}"
    remedy = "Start the server again; if it ends so again, use a smaller model or fewer slots."
    return {"field": "model", "value": f"its process ended with {how}", "allowed": "a living process", "remedy": remedy}


def _end(process: BaseProcess) -> None:
    """Wait for a process that has been told to end, and end it by force when it takes too long."""
    process.join(PATIENCE_S)
    if process.is_alive():
        process.kill()
        process.join()
