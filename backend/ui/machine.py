"""The machine in one line: cores, memory, GPU. Asked of the system, never through torch."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import cache

from backend.hardware import hardware
from backend.ui.figures import three


@cache
def machine_line() -> str:
    """For example '2 cores, 24 GiB, no GPU'."""
    found = hardware()["hardware"]
    cores = found["cores"]
    return f"{cores} core{'s' if cores > 1 else ''}, {three(found['memory_bytes'] / 2**30)} GiB, {_gpu()}"


def _gpu() -> str:
    """The name of the first GPU, or 'no GPU'."""
    tool = shutil.which("nvidia-smi")
    if tool:
        query = [tool, "--query-gpu=name", "--format=csv,noheader"]
        try:
            answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=False)
        except subprocess.TimeoutExpired:
            return "a GPU that does not answer"
        names = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
        if answer.returncode == 0 and names:
            return names[0] if len(names) == 1 else f"{len(names)} x {names[0]}"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "Apple GPU"
    return "no GPU"
