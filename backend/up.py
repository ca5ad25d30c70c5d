"""`python -m backend up`: starts the worker and the pages, keeps both alive, and takes both down with itself."""

from __future__ import annotations

import argparse
import fcntl
import http.client
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import IO, Any

from backend.child import Child
from backend.journal import Journal, state_folder

HOST = "127.0.0.1"
PORT = 8501
LOOK_S = 0.2  # how often the children are looked at
GIVE_UP_AFTER = 5  # starts in a row after which pages that never answered will not answer
ROOT = Path(__file__).resolve().parents[1]


class AlreadyUp(Exception):
    """Another `up` holds the state folder: `place` says where it runs."""

    def __init__(self, place: dict[str, Any]) -> None:
        self.place = place
        super().__init__(f"Headway runs already at {place.get('url', 'an address of its own')}")


class Supervisor:
    """The two children and the loop that looks after them."""

    def __init__(self, port: int) -> None:
        state = state_folder().resolve()
        environment = os.environ | {"HEADWAY_HOME": str(state)}
        self.port = port
        self.worker = Child("worker", ["-m", "backend.worker"], ROOT, environment, state / "worker.log")
        # At the lowest priority: what it draws must not slow down what it shows.
        self.pages = Child("pages", _streamlit(port), ROOT, environment, state / "pages.log", niceness=19)
        self.stopping = False

    def run(self) -> int:
        """Look after both until told to stop; returns the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        answered = False
        try:
            while not self.stopping:
                for child in (self.worker, self.pages):
                    child.look_after()
                if not answered and answers(self.port):
                    answered = True
                    say(f"Headway runs at http://{HOST}:{self.port} (Ctrl-C stops it)")
                if not answered and self.pages.deaths >= GIVE_UP_AFTER:
                    say(f"The pages do not start. The end of {self.pages.log}:\n{self.pages.last_words()}")
                    return 1
                time.sleep(LOOK_S)
            say("Stopping.")
            return 0
        finally:
            # Both are asked first and waited for then, so that the slower one decides how long it takes.
            for child in (self.pages, self.worker):
                child.ask_to_stop()
            for child in (self.pages, self.worker):
                child.stop()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True


def _streamlit(port: int) -> list[str]:
    options = {
        "server.port": port,
        "server.address": HOST,
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
        "server.fileWatcherType": "none",
    }
    return [
        "-m",
        "streamlit",
        "run",
        str(ROOT / "backend/ui/server.py"),
        *(f"--{key}={value}" for key, value in options.items()),
    ]


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def answers(port: int) -> bool:
    """Whether the pages answer on this port."""
    connection = http.client.HTTPConnection(HOST, port, timeout=1.0)
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_free(port: int) -> bool:
    """Whether a server could listen on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def hold(state: Path, port: int) -> IO[str]:
    """Mark the state folder as taken for as long as this process lives; the system frees it after any death.

    Raises:
        AlreadyUp: when another `up` holds it.
    """
    lock = (state / "up.json").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        place = json.loads(lock.read() or "{}")
        lock.close()
        raise AlreadyUp(place) from None
    lock.truncate(0)
    lock.write(json.dumps({"url": f"http://{HOST}:{port}", "port": port, "pid": os.getpid()}))
    lock.flush()
    return lock


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m backend up", description=main.__doc__)
    parser.add_argument("--port", type=int, help=f"port of the pages on {HOST} (default: {PORT})")
    arguments = parser.parse_args()
    if arguments.port is not None and not 1024 <= arguments.port <= 65535:
        parser.error(f"--port {arguments.port}: choose one from 1024 to 65535")
    return arguments


def main() -> int:
    """Start the worker and the pages, print the address, and stop both on Ctrl-C."""
    asked = _parse().port
    port = asked or PORT
    state = state_folder().resolve()
    try:
        lock = hold(state, port)
    except AlreadyUp as error:
        say(f"{error} (process {error.place.get('pid')}, state in {state}).")
        return 0 if asked in (None, error.place.get("port")) else 2
    with lock:
        if not is_free(port):
            hint = f'make run ARGS="--port {port + 1}", or python -m backend up --port {port + 1}'
            print(f"Port {port} is taken by another program. Choose another: {hint}", file=sys.stderr)
            return 2
        with Journal(check=True) as journal:
            if journal.set_aside:
                say(f"The journal could not be read: it was set aside as {journal.set_aside}, and a new one begun.")
        return Supervisor(port).run()


if __name__ == "__main__":
    sys.exit(main())
