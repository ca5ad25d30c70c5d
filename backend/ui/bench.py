"""The Bench, piece by piece: what the page calls, in the order in which it is seen."""

from __future__ import annotations

import streamlit as st

from backend import catalog
from backend.fetched import FETCHED
from backend.forecast import check_memory
from backend.journal import Job, JournalFull
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import Race
from backend.ui import desk, forecast_view, shelf
from backend.ui.cards import error_card
from backend.ui.encoding.page import EMPTY, draw_encoding
from backend.ui.fetch import draw_fetch, draw_offer
from backend.ui.form import order, state
from backend.ui.form.panel import draw_panel
from backend.ui.live.element import draw_empty, follow_race
from backend.ui.models import effect_words, examples_for, facts_line, facts_of, fit_words, lane_words
from backend.ui.result import draw_result, draw_shared, share_race
from backend.ui.share import unpack
from backend.ui.text import plain

FIRST = "storyteller-int8-and-draft"  # the preset of a first visit: a clear gain
QUERIES = ["Something warm to drink", "How to get to work without a car", "What can be seen at night"]
PLAIN = {"prompt": "Once there was a lantern in the harbor.", "variants": [{"switches": {"int8_weight_only": {}}}]}


def fill_form(job: Job | None) -> None:
    """Fill the form once a session: from the URL's race or preset, from the race that is followed, or ready to go."""
    if state.filled():
        return
    state.show(Race.read(PLAIN))
    try:
        if "race" in st.query_params:
            state.show(unpack(st.query_params["race"]))
        elif "preset" not in st.query_params and job is not None:
            state.show(Race.read(job.spec))
        else:
            choose_preset(st.query_params.get("preset", FIRST))
    except RecipeError as error:
        st.session_state["card"] = error.card()


def choose_preset(name: str) -> None:
    """Show a preset in the form."""
    try:
        preset = shelf.load(name)
    except RecipeError as error:
        st.session_state["card"] = error.card()
        return
    state.show(preset.race)
    st.session_state["preset"] = name
    st.session_state["look_at"] = preset.look_at


def draw_switches(facts: ModelFacts | None) -> None:
    """The switches, in the panel on the left that narrow screens fold away."""
    values = state.sheet()
    tokens = min(facts.context if facts else 2048, len(values["prompt"]) // 4 + values["max_new_tokens"])
    with st.sidebar:
        draw_panel(
            facts,
            effect=lambda recipe: effect_words(facts, recipe, tokens),
            held=lambda recipe: lane_words(facts, recipe, tokens),
        )
        race = order.mistake(lambda race: None)[0]
        if race:
            st.caption(plain(fit_words(facts, race)))


def draw_order(job: Job | None) -> ModelFacts | None:
    """Model, preset, the two buttons, prompt and numbers; returns what is known of the model."""
    model, preset, race, cancel = st.columns([4, 4, 1.4, 1.4], vertical_alignment="bottom")
    with model:
        name = order.draw_model(catalog.menu())
    with preset:
        order.draw_presets(shelf.titles(), choose_preset)
    busy = job is not None and not job.ended
    race.button("Race", type="primary", on_click=start_race, disabled=busy, width="stretch", key="race")
    cancel.button("Cancel", on_click=cancel_race, args=(job,), disabled=not busy, width="stretch", key="cancel")
    sheet = state.sheet()
    facts, card = facts_of(name, sheet.get("revision"), bool(sheet.get("trust_remote_code")))
    _draw_facts(facts)
    if card:
        error_card(card, "This model cannot be used")
    if look_at := st.session_state.get("look_at"):
        st.caption(plain(f"What to look at: {look_at}"))
    if is_encoder(facts):
        order.draw_query(QUERIES)
    else:
        order.draw_prompt(examples_for(name))
    return facts


def is_encoder(facts: ModelFacts | None) -> bool:
    """Whether the form's model makes vectors of sentences and writes nothing."""
    return facts is not None and facts.task == "encoder"


def _draw_facts(facts: ModelFacts | None) -> None:
    """The model in one line, and beside it the way to get the models that can be fetched and are not here."""
    line, *offers = st.columns([5, *(1 for _ in FETCHED)], vertical_alignment="center")
    with line:
        st.caption(plain(facts_line(facts)) if facts else "Nothing is known of this model yet.")
    for column, name in zip(offers, FETCHED, strict=True):
        with column:
            draw_offer(name)
    for name in FETCHED:
        draw_fetch(name)


def checked(race: Race) -> None:
    """Refuse what the model cannot do, lane by lane, before anything is loaded.

    Raises:
        RecipeError: with the reason.
    """
    facts, card = facts_of(race.model, race.revision, race.trust_remote_code)
    if card or facts is None:
        raise RecipeError(**(card or {}))
    race.check(facts)
    check_memory(race, facts)


def start_race() -> None:
    """Queue the race that stands in the form; a mistake in it becomes a card."""
    race, card = order.mistake(checked)
    st.session_state["card"] = card
    if race is None:
        return
    try:
        facts, _ = facts_of(race.model, race.revision, race.trust_remote_code)
        desk.submit(race, "encode" if is_encoder(facts) else "race")
    except JournalFull as error:
        st.session_state["card"] = desk.full_card(error)


def cancel_race(job: Job) -> None:
    """Ask for the end of the race."""
    try:
        desk.journal().cancel(job.id)
    except JournalFull as error:
        st.session_state["card"] = desk.full_card(error)


def draw_forecast(facts: ModelFacts | None) -> None:
    """The forecast of the whole race as it stands in the form; an encoder has no decode ceiling to forecast."""
    if is_encoder(facts):
        return
    forecast_view.draw_forecast(facts, order.mistake(lambda race: None)[0])


def draw_cards() -> None:
    """Mistakes in the form as it stands, and one that came with the address or a preset."""
    card = st.session_state.pop("card", None) or order.mistake(lambda race: None)[1]
    if card:
        error_card(card)


def draw_race(job: Job | None, facts: ModelFacts | None) -> None:
    """The race that is followed: live, as it ended, or the empty places that it will fill."""
    if job is not None and job.kind == "encode":
        draw_encoding(job, "bench")
        return
    if job is None and is_encoder(facts):
        st.info(plain(EMPTY))
        return
    if job is None:
        draw_empty(order.mistake(lambda race: None)[0])
        return
    feed = desk.feed_of(job)
    if feed.follow(desk.journal()).ended:
        draw_result(feed, state.sheet().get("price_per_hour", feed.race.price_per_hour), "bench")
    else:
        follow_race(feed)


def draw_share(job: Job | None) -> None:
    """Share the form as it stands, where that is not the race whose own button stands above; then the link."""
    race = order.mistake(lambda race: None)[0]
    if job is None or not job.ended or race != desk.feed_of(job).race:
        st.button("Share this setting", on_click=_share_form, disabled=race is None, key="share-form")
    draw_shared()


def _share_form() -> None:
    race, card = order.mistake(lambda race: None)
    st.session_state["card"] = card
    if race:
        share_race(race)
