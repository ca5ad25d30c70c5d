"""Names of what trainings make: which are taken, and the next that is free."""

from __future__ import annotations

import re
from contextlib import suppress

from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.saved import own_folder
from backend.trainingfolder import check_resumed
from backend.ui import desk

OPEN = ("queued", "running", "paused")
LONGEST = 80
MOST = 100  # numbers that are tried


def check_name(asked: Training, job: int = 0) -> int:
    """The step after which it would go on, 0 from the beginning; `job` is its own, where it has one already.

    Raises:
        RecipeError: for a name that is none, is taken, or belongs to another training that is half done.
    """
    own_folder(asked.name)
    others = (one for one in desk.journal().jobs(kind="train", states=OPEN) if one.id != job)
    if any(other.spec.get("name") == asked.name for other in others):
        raise RecipeError("name", asked.name, "a name that no training under way has", "Choose another name.")
    return check_resumed(asked)


def free(asked: Training) -> Training:
    """The training, under its own name or, where that cannot be had, with the next number behind it."""
    stem = re.sub(r"-\d+$", "", asked.name)
    for number in range(1, MOST):
        end = f"-{number}"
        name = asked.name if number == 1 else f"{stem[: LONGEST - len(end)]}{end}"
        one = asked.model_copy(update={"name": name})
        with suppress(RecipeError):
            check_name(one)
            return one
    return asked  # no number helps a name that is none: its card says so
