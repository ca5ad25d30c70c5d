"""The order: model, preset, prompt and numbers above the panes, and the buttons that start and stop a race."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from backend.recipe.base import RecipeError
from backend.recipe.race import Budget, Measure, Race
from backend.ui.form.fields import draw_field
from backend.ui.form.prompts import APART, draw_prompt_set
from backend.ui.form.sheet import PARTS, race_data
from backend.ui.form.state import current, keep, put, seed, sheet
from backend.ui.text import plain, short

MORE = ("stop_at_end", "revision", "trust_remote_code", "price_per_hour")
FOREIGN = {
    "measure.prompt_set": "one",
    "measure.prompts": "",
    **dict.fromkeys(f"budget.{n}" for n in Budget.model_fields),
}
TITLES = {"budget": "Quality budget"}  # of parts whose name alone says too little


def read_race() -> Race:
    """The race as the form stands.

    Raises:
        RecipeError: for the first mistake in it.
    """
    return Race.read(race_data(current()))


def draw_model(menu: list[tuple[str, str, bool]]) -> str:
    """The model: one of the menu, or any name that is typed."""
    titles = {name: title if there else f"{title} (not fetched)" for name, title, there in menu}
    names, held = list(titles), sheet()["model"]
    options = names if held in names else [*names, held]
    note = "Pick one, or type a Hub id (org/name), a folder with safetensors, a GGUF file, or shape:NAME."
    key = seed("model", names[0], hold=True)
    chosen = st.selectbox(
        "Model", options, key=key, format_func=lambda name: titles.get(name, name), accept_new_options=True, help=note
    )
    return str(keep("model", chosen or names[0]))


def draw_presets(titles: dict[str, str], chosen: Callable[[str], None]) -> None:
    """The preset menu; `chosen` hears which one was picked."""
    st.selectbox(
        "Preset",
        list(titles),
        key="preset",
        index=None,
        placeholder="Choose a preset",
        format_func=lambda name: titles.get(name, name),
        on_change=_choose,
        args=(chosen,),
        help="A recipe with a sentence on what to look at.",
    )


def _choose(chosen: Callable[[str], None]) -> None:
    if name := st.session_state["preset"]:
        chosen(name)


def draw_prompt(examples: list[str]) -> None:
    """Prompt, tokens and seed in a row; examples and the other settings folded away."""
    text, tokens, number, more = st.columns([6, 1.7, 1.5, 1.6])
    with text:
        keep("prompt", st.text_area("Prompt", key=seed("prompt", ""), height=96))
    with tokens:
        draw_field("max_new_tokens", "Tokens", Race.model_fields["max_new_tokens"])
    with number:
        draw_field("seed", "Seed", Race.model_fields["seed"])
    with more:
        _draw_examples(examples)
        with st.popover("Settings", width="stretch"):
            _draw_settings()


def draw_query(examples: list[str]) -> None:
    """What is searched for, in the place of the prompt, and the settings that mean something to an encoder."""
    for name, value in FOREIGN.items():  # what only a decoder can be asked must not stand in the way unseen
        if sheet().get(name, value) != value:
            put(name, value)
    text, more = st.columns([8, 1.6])
    with text:
        note = "The sentences nearest to it are shown for every lane. Speed and quality do not depend on it."
        keep("prompt", st.text_area("Query", key=seed("prompt", ""), height=96, help=note))
    with more:
        _draw_examples(examples)
        with st.popover("Settings", width="stretch"):
            st.markdown("**Measure**")
            for name in ("budget_s", "width"):
                draw_field(f"measure.{name}", name.replace("_", " "), Measure.model_fields[name])
            st.markdown("**Race**")
            for name in ("revision", "trust_remote_code"):
                draw_field(name, name.replace("_", " "), Race.model_fields[name])


def _draw_examples(examples: list[str]) -> None:
    with st.popover("Examples", width="stretch"):
        for place, example in enumerate(examples):
            title = plain(short(example, 60))
            st.button(title, key=f"example:{place}", on_click=_use, args=(example,), width="stretch")


def _use(example: str) -> None:
    put("prompt", example)


def _draw_settings() -> None:
    """Sampling, measurement, and what else a race has, from the schemas."""
    for part, cls in PARTS.items():
        st.markdown(f"**{TITLES.get(part, part.title())}**")
        for name, field in cls.model_fields.items():
            if f"{part}.{name}" not in APART:
                draw_field(f"{part}.{name}", name.replace("_", " "), field)
        if cls is Measure:
            draw_prompt_set()
    st.markdown("**Race**")
    for name in MORE:
        draw_field(name, name.replace("_", " "), Race.model_fields[name])


def mistake(check: Callable[[Race], None]) -> tuple[Race | None, dict[str, str] | None]:
    """The race as it stands, or the card of the first mistake in it."""
    try:
        race = read_race()
        check(race)
    except RecipeError as error:
        return None, error.card()
    return race, None
