"""Choosing what goes: a ranking, a share of it, single heads and layers by a click or by number, and the race of it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.inspection import InspectedLane, InspectionView
from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.recipe.switch import Switch
from backend.ui.cards import error_card
from backend.ui.inspect import cuts, rankplot
from backend.ui.inspect.frame import QUIET
from backend.ui.inspect.handover import open_bench
from backend.ui.inspect.thinning import draw_thinning
from backend.ui.text import plain

HELD = "cut"  # in the session: what is chosen, by the inspection's number and the part
QUESTIONS = {"heads": "Which heads can go?", "layers": "Which layers can go?"}
CLICK = {
    "heads": "Thin cross: goes by its rank; white cross: removed by hand; ring: kept by hand. ",
    "layers": "Crossed bars go. ",
}
HOW = "A click removes, a second keeps, a third leaves it to its rank. Or name them below."

Held = dict[str, Any]  # fields, and how often a chart was clicked


def draw_cutting(job: Job, view: InspectionView, dark: bool) -> None:
    """Both parts; where nothing was ranked, the reason."""
    try:
        race = Race.read(job.spec["race"])
    except RecipeError as error:
        error_card(error.card(), "The race is of another version")
        return
    lane = next((lane for lane in view.lanes.values() if lane.rankings), None)
    if lane is None:
        reasons = [one.unavailable["rankings"] for one in view.lanes.values() if "rankings" in one.unavailable]
        again = "this inspection holds no rankings; press Inspect to look again"
        st.caption(plain(f"Nothing was ranked: {reasons[0] if reasons else again}."))
        if reasons:
            return
    for part in QUESTIONS if lane else ():
        if lane and lane.rankings.get(part):
            _draw(job.id, race, lane, part, dark)
    draw_thinning(job, race, dark)


@st.fragment
def _draw(job: int, race: Race, lane: InspectedLane, part: str, dark: bool) -> None:
    """Fields, chart, numbers and button of one part; only this is drawn again when one of them moves."""
    st.markdown(f"##### {QUESTIONS[part]}")
    held = _held(job, part, lane)
    _draw_fields(job, part, lane, held["fields"])
    switch, card = _switch(part, held["fields"])
    drawn = rankplot.chart(lane, part, held["fields"], switch, dark)
    with st.container(border=True, key=f"inspect-plot-cut-{part}"):
        st.markdown(f"**{plain(drawn.title)}**")
        key = f"cut-{job}-{part}-{held['clicks']}"  # another key after every click, or the second would unselect
        st.plotly_chart(
            drawn.figure,
            key=key,
            theme=None,
            config=QUIET,
            on_select=lambda: _click(job, part, key),
            selection_mode="points",
        )
        st.caption(plain(drawn.summary))
    st.caption(CLICK[part] + HOW)
    _draw_names(job, part, held["fields"])
    if card:
        error_card(card)
        return
    note = "Opens the Bench with this choice, and with as many at random, against the same baseline"
    if st.button(f"Race without these {part}", type="primary", key=f"cut-{job}-{part}-race", help=note) and switch:
        scores = cuts.scores_of(lane, part, held["fields"]["by"])
        try:
            open_bench(cuts.race_of(race, part, switch, len(scores), len(scores[0])))
        except RecipeError as error:
            error_card(error.card())


def _draw_fields(job: int, part: str, lane: InspectedLane, fields: cuts.Fields) -> None:
    """The ranking, and how much goes by it."""
    by, share, how = st.columns([3, 4, 3])
    by.selectbox("Ranking", list(lane.rankings[part]), **_bound(job, part, "by", fields))
    if part == "layers":
        most = len(cuts.scores_of(lane, part, fields["by"])) - 1
        share.slider("Layers that go", 1, max(2, most), **_bound(job, part, "count", fields))
        how.segmented_control("Pattern", ["scattered", "block"], required=True, **_bound(job, part, "pattern", fields))
        return
    share.slider("Share that goes", 0.0, 0.95, step=0.05, **_bound(job, part, "ratio", fields))
    how.segmented_control("Scope", ["layer", "global"], required=True, **_bound(job, part, "scope", fields))


def _draw_names(job: int, part: str, fields: cuts.Fields) -> None:
    """What a click changes, as text: the way for a keyboard, and for many at once."""
    shown = "0:1,3 2:0-2" if part == "heads" else "3 5-7"
    for column, name in zip(st.columns(2), ("remove", "keep"), strict=True):
        column.text_input(f"{name.capitalize()} {part}", placeholder=shown, **_bound(job, part, name, fields))


def _bound(job: int, part: str, name: str, fields: cuts.Fields) -> dict[str, Any]:
    """What ties a widget to a field: it opens on its value, and changes it."""
    key = f"cut-{job}-{part}-{name}"
    if key not in st.session_state:
        st.session_state[key] = fields[name]
    return {"key": key, "on_change": _set, "args": (job, part, name)}


def _held(job: int, part: str, lane: InspectedLane) -> Held:
    """What is chosen, kept apart from the widgets, which forget it when they are not drawn."""
    kept: dict[tuple[int, str], Held] = st.session_state.setdefault(HELD, {})
    if (job, part) not in kept:
        fields = dict(cuts.START[part])
        if fields["by"] not in lane.rankings[part]:
            fields["by"] = next(iter(lane.rankings[part]))
        kept[job, part] = {"fields": fields, "clicks": 0}
    return kept[job, part]


def _set(job: int, part: str, name: str) -> None:
    """A widget moved."""
    st.session_state[HELD][job, part]["fields"][name] = st.session_state[f"cut-{job}-{part}-{name}"]


def _click(job: int, part: str, key: str) -> None:
    """A point was clicked: the fields and the widgets that show them follow."""
    points = st.session_state[key]["selection"]["points"]
    held: Held = st.session_state[HELD][job, part]
    held["clicks"] += 1
    for point in points:
        layer, unit = (int(number) for number in point["customdata"][:2])
        try:
            held["fields"] = cuts.clicked(part, held["fields"], (layer, unit))
        except RecipeError:
            return  # what is typed below cannot be read; its card stands there
    for name in ("remove", "keep"):
        st.session_state[f"cut-{job}-{part}-{name}"] = held["fields"][name]


def _switch(part: str, fields: cuts.Fields) -> tuple[Switch | None, dict[str, str] | None]:
    """The switch, or the card of the first mistake in its fields."""
    try:
        return cuts.switch_of(part, fields), None
    except RecipeError as error:
        return None, error.card()
