"""Forecast beside measured, below a race that has ended."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.foretold import compared
from backend.replay import RaceView
from backend.ui.figures import seconds, share, size, three
from backend.ui.forecast_view import table
from backend.ui.palette import look
from backend.ui.text import plain

TITLES = {
    "weights_bytes": "Weights",
    "kv_bytes": "KV cache",
    "run_bytes": "Peak of run",
    "tokens_per_s": "Decode, tokens/s (ceiling)",
    "prefill_s": "TTFT (at least)",
}
BOUNDS = ("tokens_per_s", "prefill_s")


def draw_forecast_measured(view: RaceView) -> None:
    """Predicted and measured side by side, a row a figure and lane; nothing where nothing was forecast."""
    found = compared(view)
    if not found:
        return
    with st.expander("Forecast beside measured"):
        st.markdown(table(rows(found)))
        st.caption(plain(in_words(found)))


def rows(found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Titles, then a row a figure and lane."""
    made = [["lane", "figure", "predicted", "measured", "measured against predicted"]]
    for name, lane in found.items():
        for row in lane:
            figure = row["figure"]
            told = [_told(figure, row[key]) for key in ("predicted", "measured")]
            made.append([look(name).title, TITLES[figure], *told, _against(row)])
    return made


def _told(figure: str, value: float) -> str:
    if figure.endswith("_bytes"):
        return size(value)
    return seconds(value) if figure.endswith("_s") and not figure.endswith("_per_s") else three(value)


def _against(row: dict[str, Any]) -> str:
    """'+0.4%', or what share of its ceiling was reached."""
    if row["figure"] == "tokens_per_s":
        return f"{share(row['measured'] / row['predicted'])} of the ceiling"
    if row["figure"] == "prefill_s":
        return f"{three(row['measured'] / row['predicted'])}x the least time"
    return f"{100 * row['error']:+.2g}%"


def in_words(found: dict[str, list[dict[str, Any]]]) -> str:
    """The largest miss of the memory figures, and what was made of the ceiling."""
    told = []
    for name, lane in found.items():
        misses = [row for row in lane if row["figure"] not in BOUNDS]
        speed = next((row for row in lane if row["figure"] == "tokens_per_s"), None)
        parts = []
        if misses:
            worst = max(misses, key=lambda row: abs(row["error"]))
            parts.append(f"memory within {share(abs(worst['error']))} of its forecast")
        if speed:
            parts.append(f"decode reached {_against(speed)}")
        told.append(f"{look(name).title}: {', '.join(parts)}")
    return f"{'; '.join(told)}. Predicted as the race began, from the config alone."
