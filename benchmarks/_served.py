"""A server in a process of its own, as a person starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request

from openai import OpenAI

PATIENCE_S = 30.0


class Served:
    """Starts on a free port and waits for the line that says where."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", "backend", "serve", *arguments, "--port", "0"]
        self.process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline() if self.process.stdout else ""
        found = re.search(r"http://\S+/v1", line)
        if found is None:
            raise RuntimeError(f"the server said {line!r}")
        self.url = found[0]

    def client(self, key: str = "none") -> OpenAI:
        """OpenAI's client, which tries once."""
        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=60)

    def metrics(self) -> dict[str, float]:
        """What it tells Prometheus, by name and labels."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def settled(self) -> dict[str, float]:
        """The metrics once no text is open, or as they are after half a minute."""
        until = time.monotonic() + PATIENCE_S
        while (told := self.metrics())["headway_open_requests"] and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(0.2)  # the model tells of its last step once it waits
        return self.metrics() if time.monotonic() < until else told

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self.process.terminate()
        return self.process.wait(20)
