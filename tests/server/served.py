"""A server in a process of its own, as a person starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from openai import OpenAI


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

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self.process.terminate()
        return self.process.wait(20)
