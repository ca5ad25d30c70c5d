"""What the Serve page follows and starts from."""

from __future__ import annotations

import streamlit as st

from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.serving import ServePreset, Serving, serve_presets
from backend.ui import desk
from backend.ui.address import Address

ADDRESS = Address(kind="serve", setting="serving", preset="serve_preset")
FIRST = "static-against-continuous"
EARLIER = 50  # servings in the menu


def presets() -> dict[str, ServePreset]:
    """Every preset of the page, the first one first."""
    found = serve_presets()
    return {FIRST: found[FIRST]} | found


def earlier() -> dict[int, str]:
    """Servings of this journal, the newest first: 'Serving 12: storyteller, 48 requests, 48 at once'."""
    found = {}
    for job in desk.journal().jobs(kind="serve", limit=EARLIER):
        try:
            asked = Serving.read(job.spec)
        except RecipeError:
            continue
        found[job.id] = f"Serving {job.id}: {asked.model}, {asked.load.label}"
    return found


def begin_with(job: Job | None) -> tuple[Serving, str | None]:
    """What the form shows at first, and the preset that it is; a bad link puts its card into the session."""
    try:
        if (data := ADDRESS.shared()) is not None:
            return Serving.read(data, where="serving"), None
        if job is not None and ADDRESS.preset not in st.query_params:
            asked = Serving.read(job.spec, where="serving")
            return asked, next((name for name, one in presets().items() if one.serving == asked), None)
    except RecipeError as error:
        ADDRESS.complain(error.card())
    name = st.query_params.get(ADDRESS.preset, FIRST)
    name = name if name in presets() else FIRST
    return presets()[name].serving, name


def start(serving: Serving) -> None:
    """Queue it and follow it."""
    st.session_state["serve-seed"] = serving  # so that it stands in the form when one comes back to the page
    if number := ADDRESS.submit(serving):
        ADDRESS.open(number)


def share(serving: Serving) -> None:
    """Put the setting into the address, and have its link shown."""
    st.session_state["serve-seed"] = serving
    ADDRESS.share(serving)
