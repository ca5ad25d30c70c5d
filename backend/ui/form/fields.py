"""One field of a schema as a widget: a Literal is a menu, a short range a slider, a truth value a toggle."""

from __future__ import annotations

from typing import Any, Literal, get_origin

import streamlit as st
from pydantic.fields import FieldInfo

from backend.ui.form.options import base_type, bounds
from backend.ui.form.state import keep, put, seed, sheet
from backend.ui.text import plain

LONGEST_SLIDER = 64  # steps; longer ranges are typed


def draw_field(name: str, title: str, field: FieldInfo, fits: tuple[Any, ...] | None = None) -> Any:
    """Draw the widget for the sheet's value `name` and return what it holds.

    Args:
        name: key in the sheet, for example 'A.prune_heads.ratio'.
        title: what stands beside it.
        field: type, bounds, default and description.
        fits: the values that this model allows, where they are known one by one.
    """
    default = "" if field.is_required() else field.get_default(call_default_factory=True)
    held = sheet().get(name, default)
    if fits and held not in fits:
        put(name, fits[0])
    key, note = seed(name, default), plain(field.description or "") or None
    kind = base_type(field)
    if get_origin(kind) is Literal:
        options = list(fits or kind.__args__)
        return keep(name, st.selectbox(title, options, key=key, help=note, format_func=str))
    if kind is bool:
        return keep(name, st.toggle(title, key=key, help=note))
    if kind in (int, float):
        return keep(name, _number(title, kind, key, note, field, fits))
    st.session_state[key] = st.session_state[key] or ""  # a text widget cannot hold None
    shown = str(field.examples[0]) if field.examples else None
    typed = st.text_input(title, key=key, help=note, placeholder=shown)
    return keep(name, typed or default)


def _number(title: str, kind: type, key: str, note: str | None, field: FieldInfo, fits: tuple[Any, ...] | None) -> Any:
    """A number: a slider where the range is short, typed where it is long, a menu where there are gaps."""
    low, high = bounds(field)
    if field.default is None:
        return _optional(title, kind, key, note, low, high)
    if fits:
        if list(fits) != list(range(fits[0], fits[-1] + 1)):
            return st.selectbox(title, fits, key=key, help=note)
        low, high = fits[0], fits[-1]
    wide = low is not None and high is not None and high - low > 2
    step = 1 if kind is int else 0.1 if wide else 0.01
    held = st.session_state[key]
    if kind is float and 0 < field.default < step:
        most = None if high is None else float(high)
        return st.number_input(title, 0.0, most, key=key, step=field.default / 10, format="%g", help=note)
    short = low is not None and high is not None and (high - low) / step <= max(LONGEST_SLIDER, 200 * (kind is float))
    if short and low < high and low <= held <= high:  # type: ignore[operator]
        return st.slider(title, kind(low), kind(high), key=key, step=step, help=note)
    most = None if high is None else kind(high)
    return st.number_input(title, None if low is None else kind(low), most, key=key, step=step, help=note)


def _optional(title: str, kind: type, key: str, note: str | None, low: float | None, high: float | None) -> Any:
    """A number that need not be given: an empty box is None."""
    least, most = (None if end is None else kind(end) for end in (low, high))
    step, shown = (1, "%d") if kind is int else (0.01, "%g")
    return st.number_input(
        title, least, most, value=None, step=step, format=shown, key=key, help=note, placeholder="not set"
    )
