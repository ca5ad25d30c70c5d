"""Which prompts the measurement asks: the race's own, a list that is typed or uploaded, or a mix of lengths."""

from __future__ import annotations

import streamlit as st

from backend.recipe.base import RecipeError
from backend.recipe.prompts import MAX_PROMPTS, prompt_file
from backend.recipe.race import Measure
from backend.ui.form.fields import draw_field
from backend.ui.form.state import current, keep, put, seed, sheet

MODE, LINES = "measure.prompt_set", "measure.prompts"
APART = (MODE, LINES)  # what is drawn here and not from the schema one by one
TYPED = "typed prompts"  # kept while another set is chosen: a race holds prompts only where the set is a list


def draw_prompt_set() -> None:
    """The menu, and for a list the text and the upload."""
    put_away()
    if draw_field(MODE, "prompt set", Measure.model_fields["prompt_set"]) != "list":
        return
    keep(LINES, st.text_area(f"Prompts, one a line, at most {MAX_PROMPTS}", key=seed(LINES, ""), height=120))
    st.file_uploader("Prompts from a text file", key="prompt-file", on_change=_take_file, max_upload_size=2)


def put_away() -> None:
    """Give the list back when it is chosen again, and keep it out of the race while it is not."""
    values = current()
    listed = values.get(MODE) == "list"
    if listed and not values.get(LINES) and st.session_state.get(TYPED):
        put(LINES, st.session_state.pop(TYPED))
    elif not listed and values.get(LINES):
        st.session_state[TYPED] = sheet()[LINES]
        put(LINES, "")


def _take_file() -> None:
    """Put an uploaded list into the form; one that is no list becomes a card and changes nothing."""
    file = st.session_state["prompt-file"]
    if file is None:
        return
    try:
        put(LINES, prompt_file(file.name, file.getvalue()))
    except RecipeError as error:
        st.session_state["card"] = error.card()
