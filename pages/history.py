"""History: what was raced, and how did it end?"""

from __future__ import annotations

import streamlit as st

from backend.ui import history
from backend.ui.page import draw_notices

draw_notices()
races = history.finished_races()
if not races:
    st.info("No race has ended yet. Press Race on the Bench; what it showed is kept here.")
    st.page_link("pages/bench.py", label="To the Bench")
else:
    st.caption("Pick one race to see it as it ended, two to compare them.")
    picked = history.draw_table(races)
    if len(picked) == 1:
        history.draw_one(picked[0])
    elif len(picked) == 2:
        history.draw_two(*picked)
