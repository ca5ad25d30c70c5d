"""The experts of a race that has ended: balance, and what a token moves against what is held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import streamlit as st

from backend.replay import RaceView
from backend.ui.figures import share, size, three
from backend.ui.palette import look

HEAD = (
    "Counted on the prompt and the tokens written. A coefficient of variation of 0 is an even share; an entropy of 1 "
    "too. Idle ones were never chosen in this race. Bytes are of the forecast: predicted, at one token a step."
)


def draw_experts(view: RaceView, key: str) -> None:
    """The expander under the card; nothing where no lane has experts."""
    rows = list(expert_rows(view))
    if not rows:
        return
    with st.expander("Experts: who does the work", key=f"{key}-experts"):
        st.caption(HEAD)
        names = {lane: look(lane).title.capitalize() for lane in view.lanes}
        table = [{"Figure": title, **{names[lane]: cells.get(lane, "-") for lane in names}} for title, cells in rows]
        st.dataframe(table, hide_index=True, height="content", key=f"{key}-experts-table")


def expert_rows(view: RaceView) -> Iterator[tuple[str, dict[str, str]]]:
    """A row a figure: its title, and the cell of every lane that has experts."""
    lanes = (view.verdict or {}).get("lanes", {})
    routed = {name: lane["routing"] for name, lane in lanes.items() if lane.get("routing")}
    if not routed:
        return
    for title, figure in FIGURES.items():
        yield title, {name: figure(entry) for name, entry in routed.items()}
    active = {name: lane.forecast.get("active_parameters") for name, lane in view.lanes.items()}
    shown = {name: f"{millions(active[name])} of {millions(lane.parameters)}" for name, lane in view.lanes.items()}
    yield "Parameters that a token passes", shown
    held = {name: lane.memory["weights_bytes"] for name, lane in view.lanes.items() if lane.memory}
    yield "Weights held", {name: size(found) for name, found in held.items()}
    moved = {name: found for name, lane in view.lanes.items() if (found := lane.forecast.get("moved_bytes"))}
    if moved:
        yield "Read for a token (predicted)", {name: size(found) for name, found in moved.items()}
        both = {name: moved[name] / held[name] for name in moved if name in held}
        yield "Share of the weights that a token reads (predicted)", {name: share(part) for name, part in both.items()}


def millions(count: float | None) -> str:
    """'9.9M'."""
    return "unknown" if count is None else f"{three(count / 1e6)}M"


FIGURES: dict[str, Any] = {
    "Experts a token": lambda entry: f"{entry['per_token']} of {entry['experts']}",
    "Coefficient of variation, mean over layers": lambda entry: three(entry["variation"]),
    "The same, worst layer": lambda entry: three(entry["variation_worst"]),
    "Entropy of the shares": lambda entry: three(entry["entropy"]),
    "Idle experts, all layers": lambda entry: str(entry["idle"]),
    "Choices dropped of the prompt": lambda entry: share(entry["share_dropped"]),
}
