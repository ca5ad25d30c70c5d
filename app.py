"""Headway: how far ahead does this choice get you, and what does it cost?"""

from __future__ import annotations

import streamlit as st

from backend.ui.page import draw_head, require_journal

st.set_page_config(page_title="Headway", layout="wide", initial_sidebar_state=328)
page = st.navigation(
    [
        st.Page("pages/bench.py", title="Bench", default=True),
        st.Page("pages/inspect.py", title="Inspect"),
        st.Page("pages/train.py", title="Train"),
        st.Page("pages/serve.py", title="Serve"),
        st.Page("pages/history.py", title="History"),
    ],
    position="top",
)
draw_head()
require_journal()
page.run()
