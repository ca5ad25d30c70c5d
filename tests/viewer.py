"""A page that looks at a race, without a browser: it listens to the stream and calls again whenever that ends."""

from __future__ import annotations

import http.client
import json
import threading
import time
from types import TracebackType
from typing import Any

from backend.journal import ENDED
from backend.up import HOST


class Viewer(threading.Thread):
    """One listener; `told` holds every payload that it got."""

    def __init__(self, port: int, job: int) -> None:
        super().__init__(daemon=True)
        self.port, self.job = port, job
        self.told: list[dict[str, Any]] = []
        self._stopped = threading.Event()
        self._last = ""

    @property
    def ended(self) -> bool:
        """Whether it was told the end of the race."""
        return bool(self.told) and self.told[-1]["state"] in ENDED

    def ids(self) -> dict[str, list[int]]:
        """All tokens that it was told, by lane; a piece that does not follow on the one before is an error."""
        held: dict[str, list[int]] = {}
        for data in self.told:
            for lane in data["lanes"]:
                ids = held.setdefault(lane["name"], [])
                if lane["from"] != len(ids):
                    raise AssertionError(f"{lane['name']} goes on at {lane['from']} and {len(ids)} tokens were told")
                ids.extend(lane["ids"])
        return held

    def run(self) -> None:
        """Listen until the race has ended."""
        while not self._stopped.is_set() and not self.ended:
            try:
                self._listen()
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)

    def _listen(self) -> None:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        try:
            headers = {"Last-Event-ID": self._last} if self._last else {}
            connection.request("GET", f"/live/{self.job}", headers=headers)
            asked = self._last
            for line in connection.getresponse():
                name, _, value = line.decode().strip().partition(": ")
                asked = value if name == "id" else asked
                if name == "data":
                    self.told.append(json.loads(value))
                    self._last = asked
                if self._stopped.is_set():
                    return
        finally:
            connection.close()

    def __enter__(self) -> Viewer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self.join(30)
