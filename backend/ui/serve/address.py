"""What the Serve page follows and starts from: a job, a shared setting or a preset, all kept in the address."""

from __future__ import annotations

import streamlit as st

from backend.journal import Job, JournalFull
from backend.recipe.base import RecipeError
from backend.recipe.serving import ServePreset, Serving, serve_presets
from backend.ui import desk
from backend.ui.share import MAX_LINK, pack, unfold

JOB, SETTING, PRESET = "serve", "serving", "serve_preset"  # parameters of the address
FOLLOWED = "serve-job"  # the session's, for who leaves the page and comes back
FIRST = "static-against-continuous"
EARLIER = 50  # servings in the menu


def presets() -> dict[str, ServePreset]:
    """Every preset of the page, the first one first."""
    found = serve_presets()
    return {FIRST: found[FIRST]} | found


def followed() -> Job | None:
    """The serving that the address names, or that the session followed last; None without one."""
    number = st.query_params.get(JOB) or str(st.session_state.get(FOLLOWED, ""))
    if not number.isascii() or not number.isdigit() or len(number) > 15:
        return None
    job = desk.journal().job(int(number))
    if job is None or job.kind != "serve":
        return None
    follow(job.id)
    return job


def follow(number: int) -> None:
    """Stay with a serving, in the session and in the address."""
    st.session_state[FOLLOWED] = number
    if st.query_params.get(JOB) != str(number):
        st.query_params[JOB] = str(number)


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
        if text := st.query_params.get(SETTING):
            return Serving.read(unfold(text[:MAX_LINK]), where="serving"), None
        if job is not None and PRESET not in st.query_params:
            asked = Serving.read(job.spec, where="serving")
            return asked, next((name for name, one in presets().items() if one.serving == asked), None)
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
    st.query_params.clear()
    follow(number)


def share(serving: Serving) -> None:
    """Put the setting into the address, and have its link shown."""
    packed = pack(serving)
    if len(packed) > MAX_LINK:
        remedy = "Switch fewer things on, or send the JSON of its result."
        st.session_state["serve-card"] = RecipeError(
            "serving", f"{len(packed):,} characters", "what fits into a link", remedy
        ).card()
        return
    st.session_state["serve-seed"] = serving
    st.query_params[SETTING] = packed
    st.session_state["serve-shared"] = packed
