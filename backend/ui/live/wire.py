"""The wire of the live element: one read-only stream of events that tells what is new in a race as it comes.

Were the page itself to refresh five times a second, the browser would go through every widget of the form each time
(27 ms of its main thread, taken from the lanes on a small machine); the element alone needs a few. A stream, because
a question sent while a lane computes takes as much from it as the answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from backend.journal import Journal
from backend.ui.live.feed import Feed, Held

ADDRESS = "/live"
LOOK_S = 0.008  # between two looks whether the journal has changed, most of which fall into a slice
REST_S = 0.08  # after news was told: ten times a second is enough for any eye
QUIET_REST_S = 1.0  # while requests are measured and nothing but a bar moves
QUIET = ("scoring", "measuring")
STREAM_S = 4.0  # then the browser asks anew, from where it stands: a server that stops waits no longer than this
MOST_FEEDS = 8


class Wire:
    """The feeds of the races that are looked at, on one journal connection of the server's event loop."""

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._feeds: OrderedDict[int, Feed] = OrderedDict()

    async def tell(self, request: Request) -> Response:
        """Answer `/live/JOB` with server-sent events; each id, 'base:12:10,A:14:14', says what the element then holds.

        News goes out right after the worker has written: that is when the lanes pause, and when drawing costs no
        lane anything. Sent at any other time it would take its milliseconds from a lane's clock.
        """
        feed = self._feed(int(request.path_params["job"]))
        if feed is None:
            return JSONResponse({"error": "no such race"}, status_code=404)
        try:
            held = read_held(request.headers.get("last-event-id", ""))
        except ValueError:
            return JSONResponse({"error": "Last-Event-ID is lane:tokens:scores,..."}, status_code=400)
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(self._news(feed, held), media_type="text/event-stream", headers=headers)

    async def _news(self, feed: Feed, held: Held) -> AsyncIterator[str]:
        journal, until = self._connection(), time.monotonic() + STREAM_S
        yield "retry: 100\n\n"
        feed.follow(journal)
        told = feed.seq if held and not feed.job.ended else -1
        while time.monotonic() < until:
            version = journal.version
            feed.follow(journal)
            if feed.seq != told:
                told, data = feed.seq, feed.tell(held)
                held = now_held(data)
                yield f"id: {write_held(held)}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
                if feed.job.ended:
                    return
                await asyncio.sleep(QUIET_REST_S if data["progress"]["name"] in QUIET else REST_S)
                version = journal.version
                if _has_ended(journal, feed.job.id):
                    continue  # no lane computes any more, and no write would follow
            await _change(journal, version, until)

    def _connection(self) -> Journal:
        if self._journal is None:
            self._journal = Journal()
        return self._journal

    def _feed(self, number: int) -> Feed | None:
        feed = self._feeds.get(number)
        if feed is None:
            job = self._connection().job(number)
            if job is None or job.kind != "race":
                return None
            feed = self._feeds[number] = Feed(job)
        self._feeds.move_to_end(number)
        while len(self._feeds) > MOST_FEEDS:
            self._feeds.popitem(last=False)
        return feed


def _has_ended(journal: Journal, number: int) -> bool:
    job = journal.job(number)
    return job is None or job.ended


async def _change(journal: Journal, version: int, until: float) -> None:
    while journal.version == version and time.monotonic() < until:
        await asyncio.sleep(LOOK_S)


def now_held(data: dict[str, Any]) -> Held:
    """What an element holds that has taken this payload."""
    return {lane["name"]: (lane["from"] + len(lane["ids"]), lane["kfrom"] + len(lane["kld"])) for lane in data["lanes"]}


def read_held(text: str) -> Held:
    """Read 'base:12:10,A:14:14'.

    Raises:
        ValueError: when it is written otherwise.
    """
    held: Held = {}
    for part in filter(None, text.split(",")):
        name, tokens, scores = part.split(":")
        held[name] = (max(0, int(tokens)), max(0, int(scores)))
    return held


def write_held(held: Held) -> str:
    """The inverse of `read_held`."""
    return ",".join(f"{name}:{tokens}:{scores}" for name, (tokens, scores) in held.items())


def routes() -> list[Route]:
    """The routes to mount beside Streamlit's own."""
    return [Route(ADDRESS + "/{job:int}", Wire().tell)]
