"""The devices of this machine, found without importing torch."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import psutil

_NVIDIA = Path("/proc/driver/nvidia/gpus")
_AMD = Path("/dev/kfd")
_CGROUP = Path("/sys/fs/cgroup")


@cache
def devices() -> tuple[str, ...]:
    """The devices that the installed torch can use here, best first; 'cpu' is always the last."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ("cpu",)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return ("mps", "cpu")
    built_for = _torch_built_for()
    if ("cuda" in built_for and _gpus()) or ("hip" in built_for and _AMD.exists()):
        return ("cuda", "cpu")
    return ("cpu",)


def _torch_built_for() -> set[str]:
    """Which GPU libraries the installed torch was built with, read from its version file."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return set()
    version = Path(spec.submodule_search_locations[0]) / "version.py"
    if not version.exists():
        return set()
    found = re.findall(r"^(cuda|hip)\b[^=\n]*=\s*['\"]", version.read_text(encoding="utf-8"), re.MULTILINE)
    return set(found)


def _gpus() -> bool:
    if _NVIDIA.is_dir() and any(_NVIDIA.iterdir()):
        return True
    return bool(_smi("index"))


def _smi(query: str) -> list[str]:
    """One line a GPU of what nvidia-smi says; empty where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    return done.stdout.split("\n")[:-1]


def free_bytes(device: str = "cpu") -> int | None:
    """Bytes that a new model may take now: available memory within the container's limit, or free GPU memory.

    Returns:
        None where the device does not say.
    """
    if device.startswith("cuda"):
        lines = _smi("memory.free")
        return int(lines[0]) * 2**20 if lines and lines[0].strip().isdigit() else None
    available = psutil.virtual_memory().available
    limit = _cgroup_free()
    return available if limit is None else min(available, limit)


def _cgroup_free() -> int | None:
    """What the control group leaves; its page cache counts as free because the kernel gives it back."""
    limit, current, stat = (_CGROUP / name for name in ("memory.max", "memory.current", "memory.stat"))
    if not (limit.exists() and current.exists() and stat.exists()):
        return None
    most = limit.read_text().strip()
    if most == "max":
        return None
    lines = dict(line.split() for line in stat.read_text().splitlines())
    return max(0, int(most) - int(current.read_text()) + int(lines.get("inactive_file", 0)))
