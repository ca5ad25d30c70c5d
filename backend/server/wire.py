"""What goes over a connection: bodies of a limited size, streams of events, and the moment when a client hangs up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backend.server.errors import ApiError
from backend.server.exchange import Exchange
from backend.server.settings import Settings

T = TypeVar("T")
DRAINED = 8  # times the limit that is read and thrown away, so that the client gets to hear why


class HungUp(Exception):
    """The client is gone."""


async def read_body(request: Request, settings: Settings) -> bytes:
    """The whole body.

    Raises:
        ApiError: when it is too large, of another type, or does not come in time.
        HungUp: when the client leaves before its end.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Any web page may send other types to this machine unasked; for this one browsers ask first, and are refused.
        message = "Send JSON, with the header Content-Type: application/json."
        raise ApiError(415, message, code="unsupported_content_type")
    most, held, size = settings.max_body_bytes, bytearray(), 0
    try:
        async with asyncio.timeout(settings.body_s):
            async for piece in request.stream():
                size += len(piece)
                if size <= most:
                    held += piece
                elif size > DRAINED * most:
                    break
    except TimeoutError:
        message = f"The body did not come within {settings.body_s:g} seconds."
        raise ApiError(408, message, code="request_timeout", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise HungUp from None
    if size > most:
        message = f"The body is larger than the {most:,} bytes that this server takes."
        raise ApiError(413, message, code="request_too_large")
    return bytes(held)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work while the client waits.

    Raises:
        HungUp: when it does not wait any longer; the work was cancelled then.
    """
    doing, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((doing, watching), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise HungUp
    finally:
        for task in (doing, watching):
            task.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events as they come. A client that takes nothing for too long counts as gone."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], exchange: Exchange, stall_s: float) -> None:
        """`exchange` is where the events come from: it is closed at the end, however that comes."""
        self._events = events
        self._exchange = exchange
        self._stall_s = stall_s
        self.background = None
        self.status_code = 200
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them to the end, or until nobody listens."""
        with suppress(HungUp, OSError, TimeoutError):
            async with self._exchange:
                await unless_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for event in self._events:
            async with asyncio.timeout(self._stall_s):
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(data: dict[str, Any]) -> bytes:
    """One event that holds JSON."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
PING = b": waiting\n\n"
