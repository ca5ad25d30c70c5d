"""Several viewers of one race, over a real server: each is told everything once, and one that vanishes hurts nobody."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import staged
import uvicorn
from starlette.applications import Starlette

from backend.journal import Journal
from backend.replay import RaceView
from backend.ui.live import wire
from backend.ui.live.wire import routes
from tests.viewer import Viewer

PAUSE_S = 0.01


def wait_for(true: Callable[[], object], limit_s: float = 20.0) -> None:
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def server(home: Path) -> Iterator[uvicorn.Server]:
    """The wire alone, behind the server that carries the pages."""
    config = uvicorn.Config(Starlette(routes=routes()), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_for(lambda: running.started)
    yield running
    running.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def port_of(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


def queue(tokens: int = 128) -> int:
    with Journal() as journal:
        number = journal.submit("race", staged.race(tokens).model_dump(mode="json"))
        assert journal.claim("a worker", "race")
    return number


def race(number: int, tokens: int = 128) -> RaceView:
    """Play the whole race into the journal, as the worker would, and return how it ended."""
    with Journal() as journal:
        return staged.play(journal, number, staged.race(tokens), pause_s=PAUSE_S)


def test_two_viewers_and_one_who_comes_late_are_told_everything_once(server: uvicorn.Server) -> None:
    number, port = queue(), port_of(server)
    late = Viewer(port, number)
    with Viewer(port, number) as first, Viewer(port, number) as second:
        starter = threading.Timer(0.3, late.start)
        starter.start()
        view = race(number)
        starter.join()
        viewers = (first, second, late)
        wait_for(lambda: all(one.ended for one in viewers))
    truth = {name: lane.ids for name, lane in view.lanes.items()}
    for viewer in viewers:
        assert viewer.ids() == truth
        assert viewer.told[-1]["state"] == "finished"
    assert len(first.told) > 3
    assert len(second.told) > 3


def vanish(port: int, number: int) -> None:
    """Look at the race and go without a word, as a closed lid does."""
    gone = socket.create_connection(("127.0.0.1", port), timeout=10)
    gone.sendall(f"GET /live/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert gone.recv(64).startswith(b"HTTP/1.1 200")
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no goodbye
    gone.close()


def test_a_viewer_that_vanishes_leaves_the_others_and_no_stream_behind(
    server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "STREAM_S", 60.0)  # what ends sooner was ended by the viewer's going
    number, port = queue(), port_of(server)
    with Viewer(port, number) as stays:
        wait_for(lambda: stays.told)
        for _ in range(4):
            vanish(port, number)
        wait_for(lambda: len(server.server_state.connections) == 1, 5.0)
        goers = [threading.Timer(0.1 * n, vanish, (port, number)) for n in range(4)]
        for goer in goers:
            goer.start()
        view = race(number)
        for goer in goers:
            goer.join()
        wait_for(lambda: stays.ended)
    assert stays.ids() == {name: lane.ids for name, lane in view.lanes.items()}
    wait_for(lambda: not server.server_state.connections and not server.server_state.tasks, 5.0)
