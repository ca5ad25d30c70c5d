"""Bytes by what they are for, as bars from zero: still HTML, the same while it runs and at the end."""

from __future__ import annotations

import html

import streamlit as st

from backend.ui.figures import size
from backend.ui.inspect.plot import colour
from backend.ui.text import plain

ROW = "display:grid;grid-template-columns:96px 1fr 64px;gap:8px;align-items:center;font-size:12px;line-height:18px"


def draw_bars(title: str, held: dict[str, float], key: str, last: str = "") -> None:
    """A bar for each entry, in bytes; below them the same in words."""
    dark = st.context.theme.type == "dark"
    most = max(held.values(), default=0) or 1
    rows = "".join(_row(name, value, value / most, colour("A", dark)) for name, value in held.items())
    with st.container(border=True, key=f"inspect-plot-{key}"):
        st.markdown(f"**{plain(title)}**")
        st.html(f'<div aria-hidden="true">{rows}</div>')
        words = ", ".join(f"{name} {size(value)}" for name, value in held.items())
        st.caption(plain(f"{words[:1].upper()}{words[1:]}.{f' {last}' if last else ''}"))


def _row(name: str, value: float, share: float, fill: str) -> str:
    bar = f'<span style="height:10px;width:{100 * share:.2f}%;background:{fill}"></span>'
    return f'<div style="{ROW}"><span>{html.escape(name)}</span>{bar}<span>{html.escape(size(value))}</span></div>'
