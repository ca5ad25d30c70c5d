"""The process of a model that is served: started by the server, which itself loads nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from backend.laneprocess import failure
from backend.recipe.base import RecipeError
from backend.serving.talk import Failed, Order
from backend.tether import die_with_parent


def start(order: Order) -> tuple[BaseProcess, Connection]:
    """Start the process; it tells over the pipe how far it is."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, order), name="model", daemon=True)
    process.start()
    theirs.close()
    return process, ours


def serve(pipe: Connection, order: Order) -> None:
    """Load and serve until the other side hangs up; what ends it before is told."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which finishes what it has begun
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from backend.modelhost import ModelHost  # brings torch

    try:
        ModelHost(pipe, order).run()
    except RecipeError as error:
        _last_word(pipe, error.card())
    except (BrokenPipeError, ConnectionResetError):
        return  # the server is gone
    except Exception as error:  # the process boundary: whatever it was, the server hears of it
        told = failure(error)
        card = {"field": "model", "value": told["cause"], "allowed": told["detail"], "remedy": told["remedy"]}
        _last_word(pipe, card)


def _last_word(pipe: Connection, card: dict[str, str]) -> None:
    with suppress(OSError):
        pipe.send([Failed(card)])
