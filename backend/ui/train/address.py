"""What the Train page follows and starts from."""

from __future__ import annotations

import streamlit as st

from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.lesson import Lesson, all_lessons
from backend.recipe.training import Training
from backend.ui import desk
from backend.ui.address import Address
from backend.ui.train import names

ADDRESS = Address(kind="train", setting="training", preset="train_preset")
FIRST = "cut-and-heal"


def presets() -> dict[str, Lesson]:
    """Every preset of the page, the first one first."""
    found = all_lessons()
    return {FIRST: found[FIRST]} | found


def begin_with(job: Job | None) -> tuple[Training, str | None]:
    """What the form shows at first, and the preset that it is; a bad link puts its card into the session."""
    try:
        if (data := ADDRESS.shared()) is not None:
            return Training.read(data, where="training"), None
        if job is not None and ADDRESS.preset not in st.query_params:
            return names.free(Training.read(job.spec, where="training")), None
    except RecipeError as error:
        ADDRESS.complain(error.card())
    name = st.query_params.get(ADDRESS.preset, FIRST)
    name = name if name in presets() else FIRST
    return names.free(presets()[name].training), name


def start(asked: Training) -> None:
    """Queue it and follow it; a name that cannot be had becomes a card."""
    try:
        names.check_name(asked)
    except RecipeError as error:
        ADDRESS.complain(error.card())
        return
    if number := ADDRESS.submit(asked):
        ADDRESS.open(number)


def pause(job: Job) -> None:
    """Let it rest."""
    desk.journal().pause(job.id)


def resume(job: Job) -> None:
    """Let it go on from its last checkpoint; where that is another training's by now, a card says so."""
    try:
        names.check_name(Training.read(job.spec, where="training"), job.id)
    except RecipeError as error:
        ADDRESS.complain(error.card())
        return
    desk.journal().resume(job.id)
