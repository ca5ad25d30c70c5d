"""What was measured, below the verdict card: the figures side by side, and what gives reason to doubt them."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.ui.figuretable import columns, kinds_of, rows, summary
from backend.ui.text import plain


def draw_measured(verdict: dict[str, Any] | None, key: str) -> None:
    """Every figure of the measurement, and a table for each kind of prompt of a mix; nothing without requests."""
    if verdict is None or not rows(verdict):
        return
    with st.container(border=True, key=f"{key}-measured"):
        st.markdown("**Measured**")
        _draw_table(verdict)
        for kind in kinds_of(verdict):
            with st.expander(f"{plain(kind.capitalize())} alone"):
                _draw_table(verdict, kind)
        st.caption(plain(summary(verdict)))


def draw_suspicions(verdict: dict[str, Any]) -> None:
    """What gives reason to doubt the figures, in amber."""
    if found := verdict.get("suspicions"):
        st.warning("**Read these figures with care**\n\n" + "  \n".join(plain(one) for one in found))


def _draw_table(verdict: dict[str, Any], kind: str | None = None) -> None:
    """A table in markdown, numbers to the right, their units in small type."""
    named = columns(verdict)
    head, rule = [""], [":--"]
    for name, title in named:
        head += [plain(title)] if name == "base" else [plain(title), plain(f"{title} against the baseline")]
        rule += ["--:"] if name == "base" else ["--:", ":--"]
    lines = [head, rule]
    for row in rows(verdict, kind):
        line = [plain(row.title)]
        for name, _ in named:
            number, unit = row.values.get(name, ("", ""))
            line.append(f"{plain(number)} :small[{plain(unit)}]" if number else "")
            if name != "base":
                line.append(plain(row.ratios.get(name, "")))
        lines.append(line)
    st.markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))
