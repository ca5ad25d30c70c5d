"""The Serve page: the form, the button, and the serving as it stands."""

from __future__ import annotations

import streamlit as st

from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.serving import Serving
from backend.serving.view import ServingView
from backend.ui import desk
from backend.ui.cards import error_card
from backend.ui.inspect.running import draw_cancellable
from backend.ui.models import facts_line, facts_of
from backend.ui.serve import address, form
from backend.ui.serve.address import ADDRESS
from backend.ui.serve.live import draw_served
from backend.ui.text import plain

REFRESH_S = 1.0
NOTHING = (
    "Press Serve: every lane gets the same requests, each on a clock of its own. You see who has which slot, who "
    "waits, how much KV memory is taken, and how long each request took. The setting is on the left."
)


def draw_page() -> None:
    """Form, buttons and result."""
    job = ADDRESS.followed()
    if "serve-seed" not in st.session_state:
        form.show(*address.begin_with(job))
    serving, card = form.draw_form()
    if serving is not None:
        card = _draw_model(serving)
    _draw_buttons(job, serving, serving is None or card is not None)
    for one in (card, ADDRESS.complaint()):
        if one:
            error_card(one, "This cannot be served as it stands")
    if job is None:
        st.info(plain(NOTHING))
    elif not job.ended:
        _follow(job.id)
    else:
        draw_served(job, view_of(job))


def _draw_buttons(job: Job | None, serving: Serving | None, blocked: bool) -> None:
    """Serve, share, and what was served before."""
    busy = job is not None and not job.ended
    serve, share, before = st.columns([1.4, 1.6, 4], vertical_alignment="bottom")
    serve.button(
        "Serve", type="primary", key="serve", on_click=address.start, args=(serving,), disabled=blocked or busy,
        width="stretch", help="Cancel this serving or wait for its end." if busy else None,
    )  # fmt: skip
    share.button(
        "Share this setting", key="serve-share", on_click=address.share, args=(serving,), disabled=serving is None,
        width="stretch",
    )  # fmt: skip
    if known := address.earlier():
        index = list(known).index(job.id) if job is not None and job.id in known else None
        key = f"serve-earlier-{job.id if job else ''}-{len(known)}"
        before.selectbox(
            "Earlier servings", list(known), index=index, format_func=lambda one: known[one], key=key,
            on_change=_open, args=(key,), placeholder="Open one that was served before", label_visibility="collapsed",
        )  # fmt: skip
    ADDRESS.draw_link()


def _open(key: str) -> None:
    """Show an earlier serving, and its setting in the form."""
    if (number := st.session_state[key]) and (job := desk.journal().job(number)):
        form.show(Serving.read(job.spec), None)
        ADDRESS.open(number)


def _draw_model(serving: Serving) -> dict[str, str] | None:
    """The model in one line; the card of what cannot be served with it."""
    facts, card = facts_of(serving.model, serving.revision, serving.trust_remote_code)
    if facts is None:
        return card
    st.caption(plain(f"{serving.load.label}. {facts_line(facts)}"))
    try:
        serving.check(facts)
        serving.race.check(facts)
    except RecipeError as error:
        return error.card()
    return None


def view_of(job: Job) -> ServingView:
    """The serving's folded events, kept between drawings."""
    return desk.view_of(job, "serving-view", ServingView)


@st.fragment(run_every=REFRESH_S)
def _follow(number: int) -> None:
    """Progress, the way to end it, and the plots so far, once a second."""
    job = desk.journal().job(number)
    if job is None or job.ended:
        st.rerun(scope="app")
    view = view_of(job)
    draw_cancellable(job, view.phase, "cancel-serving")
    draw_served(job, view)
