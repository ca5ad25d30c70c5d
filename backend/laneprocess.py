"""The process around a lane: verbs come in over a pipe, plain data goes out, and every death has a cause."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from backend.recipe.base import RecipeError
from backend.recipe.training import LaneTask
from backend.tether import die_with_parent

Progress = Callable[[float, str], None]


def serve(connection: Connection, name: str, spec: dict[str, Any], task: LaneTask = "decoder") -> None:
    """Answer ("verb", {arguments}) with ("progress", ...)* and then ("done" | "refused" | "failed", {...})."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which ends its lanes itself
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

    answer_verbs(connection, lambda: _lane_class(task)(name, spec, teller(connection)))


def teller(connection: Connection) -> Progress:
    """What sends progress to the other side."""

    def progress(share: float, text: str) -> None:
        connection.send(("progress", {"share": share, "text": text}))

    return progress


def answer_verbs(connection: Connection, make: Callable[[], Any]) -> None:
    """Answer until the other side closes. The lane is made at the first verb: it may refuse."""
    lane: Any = None
    while True:
        try:
            verb, arguments = connection.recv()
        except EOFError:
            return
        try:
            if lane is None:
                lane = make()
            reply = ("done", lane.answer(verb, arguments))
        except RecipeError as error:
            reply = ("refused", error.card())
        except Exception as error:  # the process boundary: whatever it was becomes an event
            reply = ("failed", failure(error))
        try:
            connection.send(reply)
        except (BrokenPipeError, ConnectionResetError):
            return  # whoever asked is gone


def _lane_class(task: LaneTask) -> Any:
    """The lane of a task; imported after the fork, since it brings torch."""
    if task == "encoder":
        from backend.encoderlane import EncoderLane

        return EncoderLane
    if task == "training":
        from backend.trainlane import TrainLane

        return TrainLane
    from backend.lane import Lane

    return Lane


def failure(error: Exception) -> dict[str, str]:
    """Cause, detail and remedy of an exception in a lane."""
    text = f"{type(error).__name__}: {error}"
    short = text if len(text) < 500 else text[:500] + " ..."
    out_of_memory = isinstance(error, MemoryError) or any(
        words in text for words in ("OutOfMemoryError", "out of memory", "can't allocate memory")
    )
    if out_of_memory:
        return {"cause": "out of memory", "detail": short, "remedy": "Use fewer bits, fewer lanes or a shorter text."}
    return {"cause": "exception", "detail": short, "remedy": "Switch off one choice at a time to find which one it is."}
