"""Several processes of one test, that find each other as a launcher's do."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

LIMIT_S = 60.0


def together(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(*arguments)` returns in each of `count` processes, or the exit code of one that has ended before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["backend.executors.preload"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in names.items()} | {"OMP_NUM_THREADS": "1"}
        process = context.Process(target=_run, args=(theirs, environment, work, arguments), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    results: list[Any] = []
    for process, ours in started:
        try:
            results.append(ours.recv() if ours.poll(LIMIT_S) else "silent")
        except EOFError:
            process.join()
            results.append(process.exitcode)
    for process, _ in started:
        process.kill()
    return results


def _run(pipe: Connection, environment: dict[str, str], work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    pipe.send(work(*arguments))
    pipe.close()
