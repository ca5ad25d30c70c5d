"""The waterfall: from the bytes that must move to the measured step, one column a lane."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.ui.figures import seconds
from backend.ui.palette import look
from backend.ui.text import plain
from backend.ui.why import reason

BARS = {
    "weights": "read weights",
    "kv": "read KV cache",
    "arithmetic": "arithmetic",
    "kernels": "kernels fall short",
    "unchanged": "attention, norms, cache, sampling",
    "overhead": "calls and Python",
    "unexplained": "unexplained",
}
A_ROW = 2  # more, and the bars' names leave no room for the bars
WHAT = {"decode": "step", "prefill": "prefill"}


def draw_why(verdict: dict[str, Any], key: str) -> None:
    """Waterfalls of all lanes, decode and prefill apart; nothing where nothing was explained."""
    lanes = {name: lane["explained"] for name, lane in verdict["lanes"].items() if lane.get("explained")}
    if not lanes:
        return
    with st.expander("Why: from the bytes that must move to the measured step"):
        phase = st.segmented_control("Phase", list(WHAT), default="decode", key=f"{key}-phase") or "decode"
        shown = {name: explained[phase] for name, explained in lanes.items() if explained.get(phase)}
        longest = max((one["measured_s"] for one in shown.values()), default=0.0)
        columns = [column for _ in range(0, len(shown), A_ROW) for column in st.columns(min(A_ROW, len(shown)))]
        for column, (name, explained) in zip(columns, shown.items(), strict=False):
            with column:
                draw_waterfall(name, explained, longest, f"{key}-{phase}-{name}")
                st.caption(plain(f"{in_words(explained)} {reason(explained, WHAT[phase])}"))


def in_words(explained: dict[str, Any]) -> str:
    """The bars as a sentence, for screen readers and exports."""
    bars = explained["bars"]
    told = [f"{BARS[name]} {seconds(value)}" for name, value in bars.items() if abs(value) >= 5e-7]
    return f"{'; '.join(told)}; together {seconds(explained['measured_s'])}."


def draw_waterfall(name: str, explained: dict[str, Any], longest: float, key: str) -> None:
    """One lane's bars, in milliseconds, on the axis that all lanes share."""
    import plotly.graph_objects as go  # a third of a second, which an empty page does not need

    dark = st.context.theme.type == "dark"
    colour, ink = look(name).colour(dark), "#e6e6e6" if dark else "#333333"
    shown = {bar: value for bar, value in explained["bars"].items() if abs(value) >= 5e-7}
    figure = go.Figure(
        go.Waterfall(
            orientation="h",
            y=[*(BARS[bar] for bar in shown), "measured"],
            x=[*(1000 * value for value in shown.values()), 0],
            measure=["relative"] * len(shown) + ["total"],
            increasing={"marker": {"color": colour}},
            decreasing={"marker": {"color": colour, "line": {"color": ink, "width": 1}}},
            totals={"marker": {"color": ink}},
            connector={"line": {"width": 1, "color": ink}},
            hovertemplate="%{y}: %{delta:.3g} ms<extra></extra>",
        )
    )
    figure.update_layout(
        height=280,
        margin={"l": 190, "r": 8, "t": 32, "b": 32},
        title={"text": look(name).title, "font": {"size": 13, "color": ink}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": ink, "size": 11},
        showlegend=False,
    )
    figure.update_xaxes(title="ms", range=[0, 1050 * longest], tickformat=".3~g")
    figure.update_yaxes(autorange="reversed")
    st.plotly_chart(figure, key=key, theme=None, config={"displayModeBar": False})
