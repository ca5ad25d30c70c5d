"""A worker's name: which process it is, so that a dead one is known as dead."""

from __future__ import annotations

import os
import socket

import psutil

from backend.journal import GROUP


def process_name() -> str:
    """This process's name among workers: no later process has it."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def lives(name: str) -> bool:
    """Whether the process of a worker's name still runs on this machine."""
    host, pid, created = name.removeprefix(GROUP).rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" == created
    except psutil.NoSuchProcess:
        return False
