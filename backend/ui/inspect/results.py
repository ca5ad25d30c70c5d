"""An inspection that has ended, a tab a question: every plot with its sentence."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.inspection import InspectedLane, InspectionView
from backend.journal import Job
from backend.traces import read_trace
from backend.ui.cards import error_card
from backend.ui.figures import seconds, size
from backend.ui.inspect import exports, heads, memory, operators, outliers, roofline, sensitivity, time
from backend.ui.inspect.chips import draw_allocation
from backend.ui.inspect.contexts import draw_contexts
from backend.ui.inspect.cutting import draw_cutting
from backend.ui.inspect.frame import draw_chart
from backend.ui.palette import look
from backend.ui.text import plain
from backend.ui.words import failure

STATES = {
    "finished": "Finished",
    "cancelled": "Cancelled. What was found until then stands below",
    "failed": "Failed. What was found until then stands below",
}
TABS = ("Time", "Operators", "Roofline", "Memory", "Heads", "Pruning", "Sensitivity", "Outliers", "Context")


def draw_results(view: InspectionView, job: Job) -> None:
    """Cards of what failed, then the tabs."""
    if view.card:
        error_card(view.card, "The inspection did not end well")
    wall = f" in {seconds(view.wall_s)}" if view.wall_s else ""
    st.caption(f"Inspection {job.id}. {STATES[job.state]}{wall}.")
    for lane in view.lanes.values():
        _draw_failure(lane)
    if not view.lanes:
        return
    dark = st.context.theme.type == "dark"
    tabs = dict(zip(TABS, st.tabs(TABS), strict=True))
    for name, draw in DRAWERS.items():
        with tabs[name]:
            draw(list(view.lanes.values()), dark)
    with tabs["Pruning"]:
        draw_cutting(job, view, dark)
    with tabs["Sensitivity"]:
        draw_allocation(job, view, dark)
    with tabs["Context"]:
        draw_contexts(job, dark)
    st.download_button(
        "JSON",
        lambda: exports.as_json(view, job.spec),
        f"headway-inspection-{job.id}.json",
        "application/json",
        key="inspection-json",
        on_click="ignore",
    )


def _draw_failure(lane: InspectedLane) -> None:
    if lane.failure is None:
        return
    title = f"{look(lane.name).title.capitalize()} could not be looked into to the end. What the others showed stays."
    if "card" in lane.failure:
        error_card(lane.failure["card"], title)
    else:
        st.error(f"**{plain(title)}**\n\n{plain(failure(lane.failure))}")


def _lane(lanes: list[InspectedLane], key: str, has: list[str]) -> InspectedLane:
    """The lane that is shown where one is shown at a time."""
    names = [lane.name for lane in lanes if lane.name in has] or [lane.name for lane in lanes]
    name = names[0]
    if len(names) > 1:
        titles = {lane.name: f"{look(lane.name).title}: {lane.label}" for lane in lanes}
        name = st.radio("Lane", names, format_func=lambda one: titles[one], horizontal=True, key=f"inspect-lane-{key}")
    return next(lane for lane in lanes if lane.name == name)


def _time(lanes: list[InspectedLane], dark: bool) -> None:
    st.markdown("##### Which part, and which layer, takes the time?")
    for shape in time.CALLS:
        draw_chart(time.by_part(lanes, shape, dark), f"parts-{shape}")
    for column, shape in zip(st.columns(2), time.CALLS, strict=True):
        with column:
            draw_chart(time.by_layer(lanes, shape, dark), f"layers-{shape}")


def _operators(lanes: list[InspectedLane], dark: bool) -> None:
    st.markdown("##### Which operators ran, how often, and how long?")
    lane = _lane(lanes, "operators", [lane.name for lane in lanes if lane.operators])
    for shape in time.CALLS:
        st.markdown(f"**{shape.capitalize()}**")
        st.caption(plain(operators.words(lane, shape)))
        rows = operators.rows(lane, shape)
        if not rows:
            continue
        columns = {
            "Self, ms": st.column_config.NumberColumn(format="%.3f"),
            "Total, ms": st.column_config.NumberColumn(format="%.3f"),
            "Share": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0),
        }
        st.dataframe(rows, hide_index=True, column_config=columns, height=300, key=f"operators-{shape}")
        _trace(lane, shape)


def _trace(lane: InspectedLane, shape: str) -> None:
    """The Chrome trace, where its file is still there."""
    found = lane.operators[shape]
    packed = read_trace(found["trace"])
    if packed is None:
        st.caption("The trace's file was removed: only the newest are kept.")
        return
    label = f"Chrome trace of {shape}, {size(found['trace_bytes'])}"
    st.download_button(label, packed, found["trace"], "application/gzip", key=f"trace-{shape}", on_click="ignore")
    st.caption("Opens in chrome://tracing or in Perfetto.".replace(":", "\\:"))


def _roofline(lanes: list[InspectedLane], dark: bool) -> None:
    st.markdown("##### What bounds each part: memory, compute, or neither?")
    draw_chart(roofline.chart(lanes, dark), "roofline")
    rows = roofline.rows(lanes)
    if rows:
        figures = ("Time, ms", "MB moved", "M operations", "GB/s")
        columns: dict[str, Any] = {name: st.column_config.NumberColumn(format="%.3g") for name in figures}
        columns["Explained by the roof"] = st.column_config.NumberColumn(format="percent")
        st.dataframe(rows, hide_index=True, column_config=columns, key="roofline-rows")
        st.caption(
            "A roof that explains at least half of a part's time is what bounds it. Over 100%: its data came out of a "
            "cache of the processor, which is faster than memory. Below half it is overhead: calls, Python, or a "
            "kernel that reaches neither roof. Bytes and operations are the least that the shapes need."
        )


def _memory(lanes: list[InspectedLane], dark: bool) -> None:
    st.markdown("##### When is how much memory held, and what is the peak made of?")
    for number, chart in enumerate(memory.charts(lanes, dark)):
        draw_chart(chart, f"memory-{number}")


def _heads(lanes: list[InspectedLane], dark: bool) -> None:
    st.markdown("##### What do the heads look at, and which of them matter?")
    lane = _lane(lanes, "heads", [lane.name for lane in lanes if lane.attention or lane.gradients])
    found = heads.measures(lane)
    if not found:
        st.caption(plain(heads.why_none(lane)))
        return
    left, right = st.columns(2)
    with left:
        measure = st.selectbox("Measure", found, format_func=lambda one: heads.MEASURES[one], key="inspect-measure")
        draw_chart(heads.head_map(lane, measure, dark), "heads")
        if "importance" in lane.unavailable:
            st.caption(plain(f"Importance was not measured: {lane.unavailable['importance']}."))
    with right:
        if not lane.maps:
            st.caption(plain(heads.why_none(lane)))
            return
        layer, head = st.columns(2)
        at = layer.number_input("Layer", 0, max(lane.maps), 0, key=f"inspect-layer-{lane.name}")
        most = max(one["heads"] for one in lane.maps.values()) - 1
        which = head.number_input("Head", 0, max(1, most), 0, disabled=most == 0, key=f"inspect-head-{lane.name}")
        last = lane.maps[int(at)]["heads"] - 1  # pruned layers may have unequal numbers
        draw_chart(heads.attention_map(lane, int(at), min(int(which), last), dark), "attention")


def _sensitivity(lanes: list[InspectedLane], dark: bool) -> None:
    st.markdown("##### Which layer suffers most when it alone is quantized?")
    lane = next((lane for lane in lanes if lane.sensitivity), lanes[0])
    for scheme in sensitivity.SCHEMES:
        draw_chart(sensitivity.chart(lane, scheme, dark), f"sensitivity-{scheme}")


def _outliers(lanes: list[InspectedLane], dark: bool) -> None:
    st.markdown("##### Do a few large numbers spoil the rest?")
    lane = _lane(lanes, "outliers", [lane.name for lane in lanes if lane.outliers])
    draw_chart(outliers.by_layer(lane, dark), "outliers")
    rows = outliers.rows(lane)
    if not rows:
        return
    columns: dict[str, Any] = {name: st.column_config.NumberColumn(format="percent") for name in outliers.SHARES}
    columns |= {name: st.column_config.NumberColumn(format="%.3g") for name in outliers.FIGURES}
    st.dataframe(rows, hide_index=True, column_config=columns, key="outlier-rows")
    names = [one["name"] for one in lane.outliers["layers"]]
    name = st.selectbox("Layer", names, key=f"inspect-histogram-{lane.name}")
    draw_chart(outliers.histogram(lane, name, dark), "histogram")


DRAWERS = {
    "Time": _time,
    "Operators": _operators,
    "Roofline": _roofline,
    "Memory": _memory,
    "Heads": _heads,
    "Sensitivity": _sensitivity,
    "Outliers": _outliers,
}
