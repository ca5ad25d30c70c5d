"""The wire of the live element: a read-only address that tells what is new in a race, as soon as there is something.

Were the page itself to refresh five times a second, the browser would go through every widget of the form each time
(27 ms of its main thread, taken from the lanes on a small machine); the element alone needs a few.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend.journal import Journal
from backend.ui.live.feed import Feed, Held

ADDRESS = "/live"
LOOK_S = 0.004  # between two looks whether the journal has changed: some microseconds each
CALM_S = 0.25  # how long news that is there already waits for the next write
PATIENCE_S = 2.0  # then an answer goes out although nothing is new
MOST_FEEDS = 8


class Wire:
    """The feeds of the races that are looked at, on one journal connection of the server's event loop."""

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._feeds: OrderedDict[int, Feed] = OrderedDict()

    async def tell(self, request: Request) -> Response:
        """Answer `/live/JOB?seq=S&held=base:12:10,A:14:14` once the race's standing is no longer S.

        The answer goes out right after the worker has written: that is when the lanes pause, and when drawing costs
        no lane anything. Sent at any other time it would take its milliseconds from a lane's clock.
        """
        feed = self._feed(int(request.path_params["job"]))
        if feed is None:
            return JSONResponse({"error": "no such race"}, status_code=404)
        try:
            held = read_held(request.query_params.get("held", ""))
            seq = int(request.query_params.get("seq", "-1"))
        except ValueError:
            return JSONResponse({"error": "seq is a number and held is lane:tokens:scores,..."}, status_code=400)
        journal = self._connection()
        version = journal.version
        feed.follow(journal)
        if not feed.job.ended:
            until = time.monotonic() + (PATIENCE_S if feed.seq == seq else CALM_S)
            while journal.version == version and time.monotonic() < until:
                await asyncio.sleep(LOOK_S)
            feed.follow(journal)
        return JSONResponse(feed.tell(held), headers={"Cache-Control": "no-store"})

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


def routes() -> list[Route]:
    """The routes to mount beside Streamlit's own."""
    return [Route(ADDRESS + "/{job:int}", Wire().tell)]
