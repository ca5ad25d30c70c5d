"""A plot in its frame."""

from __future__ import annotations

import streamlit as st

from backend.ui.inspect.plot import Chart
from backend.ui.text import plain

QUIET = {"displayModeBar": False}


def draw_chart(chart: Chart, key: str) -> None:
    """A plot with its title above and its summary below."""
    with st.container(border=True, key=f"inspect-plot-{key}"):
        st.markdown(f"**{plain(chart.title)}**")
        if chart.figure is not None:
            st.plotly_chart(chart.figure, key=f"inspect-{key}", theme=None, config=QUIET)
        st.caption(plain(chart.summary))
