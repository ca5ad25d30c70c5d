"""How a job ends: in a state with a reason, whatever happened, and written down even when the disk was full."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from backend.journal import Job, Journal, JournalFull
from backend.recipe.base import RecipeError
from backend.watch import Cancelled

FULL_WAIT_S = 1.0  # between two tries to write into a journal whose disk is full
log = logging.getLogger("headway.worker")


def end_well(
    journal: Journal, job: Job, work: Callable[[], dict[str, float] | None], stopping: threading.Event
) -> None:
    """Run a job; whatever happens it ends in a state with a reason, and what it measured stays.

    Work that returns None is not over: it is asked again in a later turn.

    On a full disk even that can only be written once there is space: it is tried until then, or until `stopping`.
    """
    state, data = _outcome(journal, job, work)
    while data is not None:
        try:
            journal.append(job.id, [(state, None, data)])
            journal.finish(job.id, state)
            return
        except JournalFull as error:
            log.error("job %d: its end cannot be written, the journal's disk is full: %s", job.id, error)
            if stopping.wait(FULL_WAIT_S):
                return  # the next worker writes it down


def _outcome(
    journal: Journal, job: Job, work: Callable[[], dict[str, float] | None]
) -> tuple[str, dict[str, Any] | None]:
    """Run a job and return its final state with that event's data, None where it is not over."""
    try:
        return "finished", work()
    except Cancelled:
        return "cancelled", {}
    except RecipeError as error:
        return "failed", {"card": error.card()}
    except JournalFull as error:
        log.error("job %d: the journal's disk is full: %s", job.id, error)
        journal.use_reserve()
        value, remedy = f"the disk of {journal.path.parent} is full", "Free some space. What was written before stays."
        return "failed", {"card": RecipeError("journal", value, "some megabytes free", remedy).card()}
    except Exception as error:  # the process boundary: a job that breaks must not end the worker
        log.exception("job %d failed", job.id)
        remedy = "This is a fault of Headway: see worker.log in its state folder."
        value = f"{type(error).__name__}: {error}"
        return "failed", {"card": {"field": "race", "value": value, "allowed": "no fault", "remedy": remedy}}
