"""What the Serve page follows and starts from: a job, a shared setting or a preset, all kept in the address."""

from __future__ import annotations

import streamlit as st

from backend.journal import Job, JournalFull
from backend.recipe.base import RecipeError
from backend.recipe.serving import ServePreset, Serving, serve_presets
from backend.ui import desk
from backend.ui.share import MAX_LINK, pack, unfold

JOB, SETTING, PRESET = "serve", "serving", "serve_preset"  # parameters of the address
FIRST = "static-against-continuous"


def presets() -> dict[str, ServePreset]:
    """Every preset of the page, the first one first."""
    found = serve_presets()
    return {FIRST: found[FIRST]} | found


def followed() -> Job | None:
    """The serving that the address names; None without one."""
    number = st.query_params.get(JOB, "")
    if not number.isascii() or not number.isdigit() or len(number) > 15:
        return None
    job = desk.journal().job(int(number))
    return job if job is not None and job.kind == "serve" else None


def begin_with(job: Job | None) -> tuple[Serving, str | None]:
    """What the form shows at first, and the preset that it is; a bad link puts its card into the session."""
    try:
        if text := st.query_params.get(SETTING):
            return Serving.read(unfold(text[:MAX_LINK]), where="serving"), None
        if job is not None:
            return Serving.read(job.spec, where="serving"), None
    except RecipeError as error:
        st.session_state["serve-card"] = error.card()
    name = st.query_params.get(PRESET, FIRST)
    name = name if name in presets() else FIRST
    return presets()[name].serving, name


def start(serving: Serving) -> None:
    """Queue it and follow it."""
    st.session_state["serve-seed"] = serving  # so that it stands in the form when one comes back to the page
    try:
        number = desk.journal().submit("serve", serving.model_dump(mode="json"), desk.owner())
    except JournalFull as error:
        st.session_state["serve-card"] = desk.full_card(error)
        return
    st.query_params.from_dict({JOB: str(number)})


def share(serving: Serving) -> None:
    """Put the setting into the address, from where it can be copied."""
    st.session_state["serve-seed"] = serving
    st.query_params.from_dict({SETTING: pack(serving)})
    st.session_state["serve-shared"] = True
