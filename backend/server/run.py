"""The server from its first breath to its last: a port, a model, requests, and an end in which answers are finished."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from backend.recipe.base import RecipeError
from backend.server.app import build
from backend.server.bridge import Bridge
from backend.server.instruments import Instruments
from backend.server.settings import Settings
from backend.serving.talk import Loading, News, Order

REFUSED, MODEL_ENDED = 2, 3
KEEP_ALIVE_S = 30  # longer than clients keep a connection that they do not use, so that none is closed in their hands
AFTER_GRACE_S = 5
BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens: from now on no other server gets this port.

    Raises:
        RecipeError: when the port is taken, or the address is none of this machine.
    """
    found = _addresses(host, port)
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was in use a moment ago is free
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except PermissionError:
        listener.close()
        raise RecipeError("port", port, "one from 1024 to 65535", "Choose another with --port.") from None
    except OSError as error:
        listener.close()
        remedy = f"Another program listens there ({error.strerror}): choose another with --port, or 0 for any."
        raise RecipeError("port", f"{host}:{port}", "an address of this machine that is free", remedy) from None
    listener.setblocking(False)
    return listener


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, int, int, str, tuple[object, ...]]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)  # type: ignore[return-value]
    except OSError as error:
        raise RecipeError("host", host, "an address of this machine", f"Correct it: {error.strerror}.") from None


class _Uvicorn(uvicorn.Server):
    """Stops on a signal, and gives begun answers their time."""

    def __init__(self, config: uvicorn.Config, bridge: Bridge, grace_s: float) -> None:
        super().__init__(config)
        self._bridge, self._grace_s = bridge, grace_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets answers finish; the second does not."""
        if self._bridge.closing or sig is None:
            self.force_exit = True
            self._bridge.give_up("The server is stopping.")
        else:
            self.wind_down()

    def wind_down(self) -> None:
        """Take nothing new, and give up after the grace."""
        self._bridge.closing = True
        self.should_exit = True
        loop = asyncio.get_running_loop()
        loop.call_later(self._grace_s, self._bridge.give_up, "The server is stopping.")


async def serve(settings: Settings, order: Order, fingerprint: str, listener: socket.socket) -> int:
    """Serve until a signal or the model's end; returns the exit code."""
    bridge = Bridge(order, lambda news: _hear(news, instruments))
    instruments = Instruments(lambda: bridge.open, lambda: bridge.state == "ready" and not bridge.closing)
    config = uvicorn.Config(
        build(settings, bridge, instruments, fingerprint),
        lifespan="off", access_log=False, log_level=logging.WARNING, server_header=False, ws="none",
        timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=int(settings.grace_s) + AFTER_GRACE_S,
    )  # fmt: skip
    server = _Uvicorn(config, bridge, settings.grace_s)
    bridge.start()
    minders = [
        asyncio.create_task(_announce(settings, bridge, listener)),
        asyncio.create_task(_mind(bridge, server)),
        asyncio.create_task(instruments.watch_the_loop()),
    ]
    try:
        await server.serve([listener])
    finally:
        for minder in minders:
            minder.cancel()
        ended = bridge.ended.is_set()
        await bridge.stop()
    if not ended:
        _say("Stopped.")
        return 0
    print(f"\nheadway: {RecipeError(**bridge.card)}", file=sys.stderr)
    return REFUSED if bridge.ready is None else MODEL_ENDED


def _hear(news: News, instruments: Instruments) -> None:
    instruments.told(news)
    if isinstance(news, Loading) and sys.stderr.isatty():
        print(f"\r\033[K{news.share:.0%} {news.text}", end="", file=sys.stderr, flush=True)


async def _announce(settings: Settings, bridge: Bridge, listener: socket.socket) -> None:
    await bridge.loaded.wait()
    if bridge.ready is None:
        return
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    _say(f"{settings.model} ({bridge.ready.label}) answers at http://{host}:{listener.getsockname()[1]}/v1")
    _say(f"Engine: {bridge.ready.engine}. Ctrl-C stops it.")


async def _mind(bridge: Bridge, server: _Uvicorn) -> None:
    """A server without a model has nothing to say: it ends once it has told those who wait."""
    await bridge.ended.wait()
    server.wind_down()


def _say(text: str) -> None:
    print(text, flush=True)


def run(settings: Settings, order: Order, fingerprint: str) -> int:
    """Serve in this process; returns the exit code.

    Raises:
        RecipeError: when the port cannot be had.
    """
    listener = listen(settings.host, settings.port)
    # uvicorn raises again, once it has stopped, the signal that stopped it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with listener:
        return asyncio.run(serve(settings, order, fingerprint, listener))
