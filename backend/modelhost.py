"""The process behind a server: one model under one recipe, its engine, and the texts that it writes."""

from __future__ import annotations

from backend.engine import quiet  # noqa: F401  before transformers, which imports torchao

# isort: split
import queue
import threading
import time
from multiprocessing.connection import Connection

import psutil

from backend.engine.batch.engine import BatchEngine, Progress
from backend.engine.memory import settle
from backend.engine.reader import Reader, Unreadable
from backend.engine.sequential import SequentialEngine
from backend.engine.tokenbytes import TokenBytes
from backend.engine.writer import Writer
from backend.lane import Lane
from backend.recipe.base import RecipeError
from backend.recipe.serving import Limits
from backend.serving.request import Request
from backend.serving.talk import (
    Ask,
    Began,
    Cancel,
    Chat,
    Ended,
    Loading,
    News,
    Order,
    Question,
    Ready,
    Refused,
    Said,
    Stats,
)
from backend.techniques.base import Subject

STATS_S = 0.5
Engine = BatchEngine | SequentialEngine
Read = tuple[Request, Writer]


class ModelHost:
    """Steps the engine in the main thread; a thread of its own reads asks, so that a long prompt delays no step."""

    def __init__(self, pipe: Connection, order: Order) -> None:
        self._pipe = pipe
        self._order = order
        self._speaking = threading.Lock()
        self._inbox: queue.SimpleQueue[Read | Cancel | None] = queue.SimpleQueue()
        self._writers: dict[int, Writer] = {}
        self._steps, self._step_s, self._longest_s, self._told_at = 0, 0.0, 0.0, 0.0
        self._process = psutil.Process()

    def run(self) -> None:
        """Load, say so, and serve until the other side says None or hangs up.

        Raises:
            RecipeError: for a model or a recipe that cannot be served.
        """
        subject = self._load()
        self._engine, words = engine_for(subject, Limits.read(self._order.limits))
        self._reader = Reader(subject, self._order)
        self._names = TokenBytes(subject)
        self._subject = subject
        settle()
        slots = getattr(self._engine, "slots", Limits.read(self._order.limits).slots)
        self._tell([Ready(self._label, subject.facts.context, words, slots, self._reader.chats)])
        threading.Thread(target=self._listen, name="asks", daemon=True).start()
        while self._take_in():
            self._step()

    def _load(self) -> Subject:
        lane = Lane(self._order.lane, self._order.race, lambda share, text: self._tell([Loading(share, text)]))
        lane.load()
        lane.subject.longest = lane.subject.facts.context  # of a request to come
        lane.transform()
        self._label = lane.recipe.label
        lane.subject.progress = lambda share, text: None
        return lane.subject

    def _listen(self) -> None:
        """Read what the server sends, and turn prompts into tokens."""
        while True:
            try:
                question: Question | None = self._pipe.recv()
            except (EOFError, OSError):
                question = None
            if question is None:
                self._inbox.put(None)
                return
            if isinstance(question, Cancel):
                self._inbox.put(question)
            else:
                self._read(question)

    def _read(self, ask: Ask) -> None:
        try:
            request = self._reader.read(ask)
        except Unreadable as error:
            self._tell([Refused(ask.id, str(error), error.param, error.code)])
            return
        except (
            Exception
        ) as error:  # a model's own template or tokenizer may raise anything; the next ask is still heard
            message = f"This model's tokenizer or chat template cannot read it: {type(error).__name__}: {error}"
            self._tell([Refused(ask.id, message, "messages" if isinstance(ask.prompt, Chat) else "prompt")])
            return
        writer = Writer(self._subject, list(request.prompt), ask, self._names)
        self._tell([Began(ask.id, len(request.prompt), request.max_new_tokens)])
        self._inbox.put((request, writer))

    def _take_in(self) -> bool:
        """Hand what has come to the engine; waits while there is nothing to do. False when the server is gone."""
        waits = self._engine.idle
        if waits and self._steps:
            self._tell([self._stats()])
        while True:
            try:
                item = self._inbox.get(block=waits)
            except queue.Empty:
                return True
            waits = False
            if item is None:
                return False
            if isinstance(item, Cancel):
                self._engine.cancel(item.id)
            else:
                self._submit(*item)

    def _submit(self, request: Request, writer: Writer) -> None:
        try:
            self._engine.submit(request)
        except RecipeError as error:
            self._tell([Refused(request.id, str(error), "prompt", "context_length_exceeded")])
            return
        self._writers[request.id] = writer

    def _step(self) -> None:
        began = time.perf_counter()
        progress = self._engine.step()
        spent = time.perf_counter() - began
        self._steps, self._step_s = self._steps + 1, self._step_s + spent
        self._longest_s = max(self._longest_s, spent)
        news = [told for one in progress for told in self._write(one)]
        if began - self._told_at > STATS_S:
            news.append(self._stats())
        self._tell(news)

    def _write(self, progress: Progress) -> list[News]:
        """What the progress is to whoever waits for it; nothing when the text has ended at a stop string before."""
        writer = self._writers.get(progress.id)
        if writer is None:
            return []
        said: list[Said | None] = []
        ended = progress.finished
        if progress.token is not None and ended != "stop":
            said.append(writer.add(progress.token, progress.logits))
        if writer.stopped and ended != "cancelled":
            if ended is None:
                self._engine.cancel(progress.id)
            ended = "stop"
        elif ended:
            said.append(writer.end(progress.token if ended == "stop" else None))
            ended = "stop" if writer.stopped else ended
        news: list[News] = [one for one in said if one]
        if ended:
            del self._writers[progress.id]
            news.append(Ended(progress.id, ended, writer.tokens, progress.cached))
        return news

    def _stats(self) -> Stats:
        self._told_at = time.perf_counter()
        longest, self._longest_s = self._longest_s, 0.0
        resident = self._process.memory_info().rss
        return Stats(self._engine.stats(), self._steps, self._step_s, longest, resident)

    def _tell(self, news: list[News]) -> None:
        if news:
            with self._speaking:
                self._pipe.send(news)


def engine_for(subject: Subject, limits: Limits) -> tuple[Engine, str]:
    """The batched engine, or the sequential one where the recipe cannot be batched; and a sentence that says which."""
    try:
        engine: Engine = BatchEngine(subject, limits)
    except RecipeError as error:
        engine = SequentialEngine(subject, limits.slots)
        how = f"up to {engine.slots} take turns" if engine.slots > 1 else "one after the other"
        return engine, f"without batches, {how}, since this recipe cannot be batched: {error.allowed}"
    return engine, f"{limits.batching} batching, up to {limits.slots} requests together"
