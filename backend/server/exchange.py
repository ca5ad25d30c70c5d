"""One HTTP request's share of the model: the texts that it asked for, and what comes for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from backend.server.errors import SERVER, ApiError
from backend.serving.talk import Began, Cancel, Ended, Question, Refused, Said

Heard = Began | Said | Ended | Refused


class Lost(ApiError):
    """The model can answer no more."""

    def __init__(self, why: str) -> None:
        super().__init__(503, why, kind=SERVER, code="model_unavailable")


class Exchange:
    """A context: whatever happens in it, texts that nobody waits for any more are given up when it is left."""

    def __init__(self, ids: Sequence[int], say: Callable[[Question], None]) -> None:
        self.began: dict[int, Began] = {}
        self.ended: dict[int, Ended] = {}
        self._places = {id: place for place, id in enumerate(ids)}
        self._say = say
        self._news: asyncio.Queue[Heard | str] = asyncio.Queue()
        self._living = set(ids)

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what has not ended."""
        for id in self._living:
            self._say(Cancel(id))
        self._living.clear()

    def take(self, heard: Heard) -> None:
        """Hear from the model."""
        if isinstance(heard, Ended | Refused):
            self._living.discard(heard.id)
        self._news.put_nowait(heard)

    def lose(self, why: str) -> None:
        """Nothing more will come."""
        self._news.put_nowait(why)

    async def admitted(self) -> None:
        """Wait until every text was read and waits for its turn.

        Raises:
            ApiError: for one that was refused.
        """
        early: list[Began | Said | Ended] = []
        while len(self.began) < len(self._places):
            news = await self._next()
            if isinstance(news, Began):
                self.began[news.id] = news
            else:
                early.append(news)  # of a text that was written while another was read
        later = [self._news.get_nowait() for _ in range(self._news.qsize())]
        for item in [*early, *later]:
            self._news.put_nowait(item)

    async def _next(self, wait_s: float | None = None) -> Began | Said | Ended:
        """What comes next, of what is no refusal; a TimeoutError where nothing does in time."""
        news = await asyncio.wait_for(self._news.get(), wait_s)
        if isinstance(news, str):
            raise Lost(news)
        if isinstance(news, Refused):
            raise ApiError(400, news.message, param=news.param, code=news.code)
        return news

    async def heard(self, ping_s: float | None = None) -> AsyncIterator[tuple[int, Said | Ended] | None]:
        """What is said, with the place of its text, until all have ended.

        None stands for `ping_s` in which nothing came.

        Raises:
            ApiError: when the model can answer no more, or finds only now that it cannot answer.
        """
        while len(self.ended) < len(self._places):
            try:
                news = await self._next(ping_s)
            except TimeoutError:
                yield None
                continue
            if isinstance(news, Ended):
                self.ended[news.id] = news
            if not isinstance(news, Began):
                yield self._places[news.id], news

    @property
    def written(self) -> int:
        """Tokens of all texts that have ended."""
        return sum(ended.tokens for ended in self.ended.values())
