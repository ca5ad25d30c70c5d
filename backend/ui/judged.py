"""The quality budget and the quality alarm on the verdict card: red where they say no, and always with their word."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.ui.quality_words import alarm_line, budget_line, contradictions
from backend.ui.text import plain


def draw_budget(name: str, lane: dict[str, Any]) -> None:
    """Pass or fail, where a person set a budget: it stands before everything else."""
    if line := budget_line(lane):
        text = f"**{plain(f'{name}, quality budget: {line}')}**"
        st.markdown(f":red[{text}]" if lane["budget"]["verdict"] == "fail" else text)


def draw_alarm(lane: dict[str, Any]) -> None:
    """Which metrics fell and by how much, and which say the opposite."""
    if line := alarm_line(lane):
        st.error("  \n".join([f"**{plain(line)}**", *(plain(other) for other in contradictions(lane))]))
