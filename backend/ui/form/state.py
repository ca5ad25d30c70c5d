"""The sheet of this session: kept apart from the widgets, which forget what they hold when they are not drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import streamlit as st

from backend.recipe.race import Race
from backend.ui.form.sheet import Values, values_of

SHEET = "sheet"
WIDGET = "form"
_FORM: ContextVar[str] = ContextVar("form", default="")  # whose sheet is meant: '' is the Bench's


@contextmanager
def form_of(page: str) -> Iterator[None]:
    """What is drawn or read inside belongs to the form of another page than the Bench."""
    token = _FORM.set(f"-{page}")
    try:
        yield
    finally:
        _FORM.reset(token)


def filled() -> bool:
    """Whether the form holds anything yet."""
    return SHEET + _FORM.get() in st.session_state


def sheet() -> Values:
    """The values as they stand."""
    values: Values = st.session_state[SHEET + _FORM.get()]
    return values


def current() -> Values:
    """The values after what the person did last: widgets tell it to the session before the page is drawn."""
    values = sheet()
    for key, value in st.session_state.items():
        if isinstance(key, str) and key.startswith(_widget("")):
            values[key.removeprefix(_widget(""))] = value
    return values


def replace(values: Values) -> None:
    """Show other values: widgets take them over when they are drawn next."""
    st.session_state[SHEET + _FORM.get()] = values
    for key in [key for key in st.session_state if isinstance(key, str) and key.startswith(_widget(""))]:
        del st.session_state[key]


def _widget(name: str) -> str:
    """The key of the widget that shows a value."""
    return f"{WIDGET}{_FORM.get()}:{name}"


def show(race: Race) -> None:
    """Show a race in the form."""
    replace(values_of(race))


def seed(name: str, value: Any, hold: bool = False) -> str:
    """The key of the widget that shows `name`, filled with the sheet's value (or `value`) before it is drawn.

    With `hold` it is filled every time: a menu whose options change would forget its choice otherwise.
    """
    key = _widget(name)
    if key not in st.session_state:
        st.session_state[key] = sheet().setdefault(name, value)
    elif hold:
        st.session_state[key] = st.session_state[key]
    return key


def put(name: str, value: Any) -> None:
    """Set one value from outside of its widget, before it is drawn."""
    sheet()[name] = value
    st.session_state[_widget(name)] = value


def keep(name: str, value: Any) -> Any:
    """Write down what a widget returned."""
    sheet()[name] = value
    return value
