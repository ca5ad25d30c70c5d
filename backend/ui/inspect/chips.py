"""Choosing the levels: a budget that moves along the frontier, a row of chips a unit, and the way to the race."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.allocation import Frontier
from backend.inspection import InspectionView
from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.recipe.switches.mixed import LEVELS
from backend.ui import desk
from backend.ui.cards import error_card
from backend.ui.inspect import allocation
from backend.ui.inspect.frame import draw_chart
from backend.ui.inspect.handover import open_bench
from backend.ui.models import facts_of
from backend.ui.text import plain

STEP = 0.05  # bits per weight
FIRST = 6.0  # the budget as it opens, where it can be met
LOOKED_AT = 50  # races that may have tried the mix
HELD = "mixed"  # in the session: what is chosen, by the inspection's number

Held = dict[str, Any]  # budget: bits per weight; levels: {unit: level}


def draw_allocation(job: Job, view: InspectionView, dark: bool) -> None:
    """The section beneath the sensitivities; where it cannot be drawn, the reason."""
    lane = next((lane for lane in view.lanes.values() if lane.sensitivity), None)
    if lane is None:
        return  # the charts above say why nothing was measured
    st.markdown("##### Which level for which layer?")
    try:
        race = Race.read(job.spec["race"])
    except RecipeError as error:
        error_card(error.card(), "The race is of another version")
        return
    facts, card = facts_of(race.model, race.revision, race.trust_remote_code)
    if facts is None:
        error_card(card or {}, "The model cannot be sized")
        return
    front = allocation.frontier_of(lane, facts, race.baseline)
    if isinstance(front, str):
        st.caption(plain(f"No levels can be chosen: {front}."))
        return
    _draw(job.id, race, front, dark)


@st.fragment
def _draw(job: int, race: Race, front: Frontier, dark: bool) -> None:
    """Slider, plot, chips and button; only this is drawn again when one of them moves."""
    held = _held(job, front)
    low, high = _ends(front)
    st.slider(
        "Budget, bits per weight",
        low,
        high,
        step=STEP,
        format="%.2f",
        key=_seeded(f"mixed-{job}-budget", held["budget"]),
        on_change=_move,
        args=(job, front),
        help="The levels below follow it: the least predicted KLD within so many bits per weight of layers and head, "
        "scales included. The embedding's table is not counted.",
    )
    chosen = front.of(held["levels"])
    draw_chart(allocation.chart(front, chosen, dark), "allocation")
    if told := _raced(race, held["levels"]):
        st.caption(plain(told))
    _draw_chips(job, front, held)
    kept = set(held["levels"].values()) == {"keep"}
    note = "Opens the Bench with this mix and with uniform int8 against the same baseline"
    if st.button("Race this", type="primary", key=f"mixed-{job}-race", disabled=kept, help=note):
        _open(race, held["levels"])


def _draw_chips(job: int, front: Frontier, held: Held) -> None:
    """A segmented control for each unit, wrapped as the screen allows."""
    with st.container(horizontal=True, gap="small", key=f"mixed-{job}-chips"):
        for unit in front.units:
            key = _seeded(f"mixed-{job}-{unit.name}", held["levels"][unit.name])
            st.segmented_control(
                f"layer {unit.name}" if unit.name.isdigit() else unit.name,
                [level for level in LEVELS if unit.choice(level)],
                required=True,
                key=key,
                on_change=_set,
                args=(job, unit.name),
            )


def _raced(race: Race, levels: dict[str, str]) -> str:
    """What the newest race of this mix measured, or ''."""
    switch = allocation.switch_of(levels)
    for job in desk.journal().jobs(kind="race", states=("finished",), limit=LOOKED_AT):
        lane = allocation.lane_raced(race, switch, job.spec)
        verdict = desk.verdict_of(job.id) if lane else None
        if lane and verdict and (told := allocation.raced_words(job.id, verdict["lanes"].get(lane, {}))):
            return told
    return ""


def _held(job: int, front: Frontier) -> Held:
    """What is chosen, kept apart from the widgets, which forget it when they are not drawn."""
    kept: dict[int, Held] = st.session_state.setdefault(HELD, {})
    if job not in kept:
        low, high = _ends(front)
        budget = min(max(FIRST, low), high)
        kept[job] = {"budget": budget, "levels": dict(front.at(budget).levels)}
    return kept[job]


def _ends(front: Frontier) -> tuple[float, float]:
    """The slider's ends, on its steps: the fewest bits that can be met, and the most of interest."""
    low = -(-front.points[0].bits_per_weight // STEP) * STEP
    high = max(allocation.most_bits(front), low + STEP)
    return round(low, 2), round(low + ((high - low) // STEP) * STEP, 2)


def _seeded(key: str, value: Any) -> str:
    if key not in st.session_state:
        st.session_state[key] = value
    return key


def _move(job: int, front: Frontier) -> None:
    """The budget moved: every chip shows the best levels for it."""
    held: Held = st.session_state[HELD][job]
    held["budget"] = st.session_state[f"mixed-{job}-budget"]
    held["levels"] = dict(front.at(held["budget"]).levels)
    for unit, level in held["levels"].items():
        st.session_state[f"mixed-{job}-{unit}"] = level


def _set(job: int, unit: str) -> None:
    """One chip was pressed."""
    st.session_state[HELD][job]["levels"][unit] = st.session_state[f"mixed-{job}-{unit}"]


def _open(race: Race, levels: dict[str, str]) -> None:
    """Show the race on the Bench."""
    try:
        made = allocation.race_of(race, levels)
    except RecipeError as error:
        error_card(error.card())
        return
    open_bench(made)
