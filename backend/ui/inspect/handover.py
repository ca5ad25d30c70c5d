"""The way from what was found to the race that tries it."""

from __future__ import annotations

import streamlit as st

from backend.recipe.race import Race
from backend.ui import desk
from backend.ui.form import state
from backend.ui.share import pack


def open_bench(race: Race) -> None:
    """Show a race on the Bench, in this session's form and in the address."""
    state.show(race)
    for name in ("preset", "look_at"):  # they speak of another setting
        st.session_state.pop(name, None)
    followed = desk.journal().job(int(st.session_state.get("job") or 0))
    if followed is None or followed.ended:
        st.session_state.pop("job", None)
    st.switch_page("pages/bench.py", query_params={"race": pack(race)})
