"""The two endpoints that write: a body becomes asks, and what comes for them an answer or a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backend.server.bridge import Bridge
from backend.server.errors import RATE_LIMIT, ApiError
from backend.server.exchange import Exchange, Lost
from backend.server.forms import ChatForm, CompletionForm, Form, Text, Usage
from backend.server.instruments import Instruments
from backend.server.parameters import Asked, ChatAsked, CompletionAsked, read
from backend.server.settings import Settings
from backend.server.wire import DONE, PING, EventStream, event, read_body, unless_gone
from backend.serving.talk import Ask, Chat, Said

COMPLETION_TOKENS = 16  # of /v1/completions where no number is given, as in the API
RETRY_S = 1


class Endpoint:
    """Answers requests for one model."""

    def __init__(self, settings: Settings, bridge: Bridge, instruments: Instruments, fingerprint: str) -> None:
        self._settings, self._bridge, self._instruments = settings, bridge, instruments
        self._fingerprint = fingerprint

    async def completions(self, request: Request) -> Response:
        """`/v1/completions`."""
        asked = read(CompletionAsked, await read_body(request, self._settings))
        self.check_model(asked.model)
        each, prompts = asked.n or 1, asked.prompts
        seeds = self._seeds(asked, len(prompts) * each)
        asks = [
            self._ask(asked, prompt, seed, asked.max_tokens or COMPLETION_TOKENS, asked.logprobs)
            for prompt, seed in zip([prompt for prompt in prompts for _ in range(each)], seeds, strict=True)
        ]
        form = CompletionForm(asked.model, self._fingerprint, asked.logprobs is not None, asked.usage_asked)
        return await self._answer(request, asked, asks, each, form)

    async def chat(self, request: Request) -> Response:
        """`/v1/chat/completions`."""
        asked = read(ChatAsked, await read_body(request, self._settings))
        self.check_model(asked.model)
        if asked.top_logprobs is not None and not asked.logprobs:
            message = "top_logprobs needs logprobs: true."
            raise ApiError(400, message, param="top_logprobs", code="invalid_value")
        each = asked.n or 1
        chat = Chat(tuple((turn.role, turn.text) for turn in asked.messages))
        most, scores = asked.max_completion_tokens or asked.max_tokens, asked.top_logprobs or 0
        asks = [
            self._ask(asked, chat, seed, most, scores if asked.logprobs else None) for seed in self._seeds(asked, each)
        ]
        form = ChatForm(asked.model, self._fingerprint, bool(asked.logprobs), asked.usage_asked)
        return await self._answer(request, asked, asks, each, form)

    def check_model(self, name: str) -> None:
        """Refuse any name but that of the model that is served.

        Raises:
            ApiError: for another.
        """
        if name != self._settings.model:
            message = f"There is no model {name!r} here; this server has {self._settings.model!r}."
            raise ApiError(404, message, param="model", code="model_not_found")

    def _seeds(self, asked: Asked, count: int) -> list[int]:
        most = self._settings.max_choices
        if count > most:
            message = (
                f"The request asks for {count:,} texts (prompts times n); this server writes at most {most} at once."
            )
            raise ApiError(400, message, param="n", code="above_max_value")
        return asked.seeds(count)

    def _ask(
        self, asked: Asked, prompt: str | tuple[int, ...] | Chat, seed: int, most: int | None, logprobs: int | None
    ) -> Ask:
        sampling, number = asked.sampling(), self._bridge.number()
        return Ask(number, prompt, most, sampling, seed, asked.stops, logprobs, asked.ignore_eos)

    async def _answer(self, request: Request, asked: Asked, asks: Sequence[Ask], each: int, form: Form) -> Response:
        """Ask the model, and answer as the client wants it; `each` is the number of texts for a prompt."""
        self._check_room(len(asks))
        self._instruments.asked([ask.id for ask in asks])
        exchange = self._bridge.ask(asks)
        firsts = [ask.id for ask in asks[::each]]
        if not asked.stream:
            async with exchange:
                texts = await unless_gone(request.receive, _collect(exchange, len(asks)))
            return JSONResponse(form.whole(texts, _usage(exchange, firsts)))
        try:
            await unless_gone(request.receive, exchange.admitted())
        except BaseException:
            exchange.close()
            raise
        return EventStream(self._events(exchange, form, firsts), exchange, self._settings.stall_s)

    def _check_room(self, count: int) -> None:
        if self._bridge.state != "ready":
            raise Lost(
                "The model is still being loaded." if self._bridge.state == "loading" else "The model has ended."
            )
        if self._bridge.closing:
            raise Lost("The server is stopping.")
        if self._bridge.open + count > self._settings.max_requests:
            message = f"{self._bridge.open} texts are being written or wait already: try again later."
            headers = {"Retry-After": str(RETRY_S)}
            raise ApiError(429, message, kind=RATE_LIMIT, code="too_many_requests", headers=headers)

    async def _events(self, exchange: Exchange, form: Form, firsts: Sequence[int]) -> AsyncIterator[bytes]:
        try:
            async for news in exchange.heard(self._settings.ping_s):
                if news is None:
                    yield PING
                    continue
                place, heard = news
                more = Text(heard.text, list(heard.scored)) if isinstance(heard, Said) else Text(reason=heard.reason)
                yield event(form.chunk(place, more))
            if form.usage_follows:
                yield event(form.closing(_usage(exchange, firsts)))
        except ApiError as error:
            yield event(error.body())
        yield DONE


async def _collect(exchange: Exchange, count: int) -> list[Text]:
    """All texts to their ends."""
    await exchange.admitted()
    texts = [Text() for _ in range(count)]
    async for news in exchange.heard():
        if news is None:
            continue
        place, heard = news
        if isinstance(heard, Said):
            texts[place].text += heard.text
            texts[place].scored += heard.scored
        else:
            texts[place].reason = heard.reason
    return texts


def _usage(exchange: Exchange, firsts: Sequence[int]) -> Usage:
    """A prompt is read for each of its texts, and counted once."""
    cached = sum(exchange.ended[id].cached for id in firsts if id in exchange.ended)
    return Usage(sum(exchange.began[id].prompt_tokens for id in firsts), exchange.written, cached)
