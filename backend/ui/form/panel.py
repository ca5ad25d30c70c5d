"""The switches of one lane, drawn from their schemas in the order of the pipeline. Knows no switch by name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

import streamlit as st

from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import LANES
from backend.recipe.recipe import Recipe
from backend.recipe.switch import ONE_OF, Group, Switch, all_switches, read_switch
from backend.ui.form.fields import draw_field
from backend.ui.form.options import fitting, impossible, refused
from backend.ui.form.sheet import NONE, fields_of, is_on, recipe_data, reset_lane, with_lane, without_lane
from backend.ui.form.state import current, keep, replace, seed, sheet
from backend.ui.palette import look
from backend.ui.text import plain

Predict = Callable[[Recipe], str]  # a recipe's forecast in words, '' where there is none
SHOWN = "shown_lane"


def draw_panel(facts: ModelFacts | None, effect: Predict, held: Predict) -> None:
    """Draw the lane selector and every switch of the lane that is shown.

    Args:
        facts: of the model, None while it is not known.
        effect: what a recipe does to memory and to the decode ceiling, in words.
        held: what a lane with the recipe holds, in words.
    """
    lane = _lane_bar()
    _draw_held(_chosen(lane), held)
    draw_groups(lane, list(all_switches().values()), facts, effect)


def draw_groups(lane: str, offered: list[type[Switch]], facts: ModelFacts | None, effect: Predict) -> None:
    """The switches of one lane that are offered, group by group."""
    chosen = _chosen(lane)
    for group in Group:
        kinds = [cls for cls in offered if cls.group == group]
        if not kinds:
            continue
        changed = any(switch.group == group for switch in chosen)
        st.markdown(f"**{group.title()}**{'  :blue-badge[changed]' if changed else ''}")
        if group in ONE_OF:
            _draw_menu(lane, group, kinds, facts, chosen, effect)
        else:
            _draw_toggles(lane, kinds, facts, chosen, effect)


def _lane_bar() -> str:
    """Choose, add, remove and reset a lane; returns the one that is shown."""
    lanes = current()["lanes"]
    if st.session_state.get(SHOWN) not in lanes:
        st.session_state[SHOWN] = lanes[1]
    st.segmented_control(
        "Lane", lanes, key=SHOWN, format_func=lambda lane: look(lane).title, help="The lane whose switches stand below"
    )
    lane: str = st.session_state[SHOWN] or lanes[1]
    add, remove, reset = st.columns([3, 4, 3], gap="small")
    full, only = len(lanes) == len(LANES), len(lanes) == 2 or lane == "base"
    add.button("Add", on_click=_add_lane, disabled=full, help="Add a variant, a copy of the last", width="stretch")
    remove.button("Remove", on_click=_remove_lane, args=(lane,), disabled=only, width="stretch")
    changed = bool(recipe_data(sheet(), lane)["switches"])
    reset.button("Reset", on_click=lambda: replace(reset_lane(current(), lane)), disabled=not changed, width="stretch")
    return lane


def _draw_held(chosen: list[Switch], held: Predict) -> None:
    """What the lane will hold; nothing while its switches do not go together."""
    try:
        recipe = Recipe.read({"switches": {switch.kind: switch for switch in chosen}})
    except RecipeError as error:
        st.caption(f":red[{plain(error.allowed)}]")
    else:
        st.caption(plain(held(recipe)))


def _add_lane() -> None:
    replace(with_lane(current()))
    st.session_state[SHOWN] = sheet()["lanes"][-1]


def _remove_lane(lane: str) -> None:
    replace(without_lane(current(), lane))
    st.session_state[SHOWN] = sheet()["lanes"][-1]


def _chosen(lane: str) -> list[Switch]:
    """The switches that are on, those with values that do not validate left out (the order bar shows their card)."""
    made = []
    for kind, fields in recipe_data(sheet(), lane)["switches"].items():
        try:
            made.append(read_switch(kind, fields))
        except RecipeError:
            continue
    return made


def _draw_menu(
    lane: str, group: Group, kinds: list[type[Switch]], facts: ModelFacts | None, chosen: list[Switch], predict: Predict
) -> None:
    """An exclusive group: one choice or none; what is impossible stands below with its reason."""
    name, rivals = f"{lane}.{group}", [switch for switch in chosen if switch.group != group]
    reasons = {cls.kind: obstacle(cls, facts, rivals) for cls in kinds}
    held = sheet().get(name, NONE)
    options = [NONE, *(kind for kind, reason in reasons.items() if reason is None or kind == held)]
    titles = {cls.kind: cls.title for cls in kinds} | {NONE: "none"}
    key = seed(name, NONE, hold=True)
    notes = "\n\n".join(f"**{plain(cls.title)}**: {plain(cls.summary)}" for cls in kinds)
    kind = keep(
        name,
        st.selectbox(
            group.title(), options, key=key, format_func=titles.__getitem__, help=notes, label_visibility="collapsed"
        ),
    )
    if kind:
        if words := _effect(lane, all_switches()[kind], facts, predict):
            st.caption(plain(words))
        _draw_fields(lane, all_switches()[kind], facts)
    for cls in kinds:
        if reasons[cls.kind]:
            st.caption(f"Not here: {plain(cls.title)}. {plain(_capital(reasons[cls.kind] or ''))}.")


def _draw_toggles(
    lane: str, kinds: list[type[Switch]], facts: ModelFacts | None, chosen: list[Switch], predict: Predict
) -> None:
    """Switches that stand beside others of their group; neighbours that one reason keeps off share its line."""
    shown: list[str | None] = []
    for cls in kinds:
        reason = obstacle(cls, facts, [switch for switch in chosen if switch.kind != cls.kind])
        off = reason if not is_on(sheet(), lane, cls) else None
        if shown and shown[-1] and shown[-1] != off:
            _draw_off(shown)
        _draw_toggle(lane, cls, facts, reason, predict)
        shown.append(off)
    _draw_off(shown)


def _draw_off(shown: list[str | None]) -> None:
    """Below the last switch drawn, why it and its neighbours above are off; nothing where it is not."""
    reason = shown[-1] if shown else None
    if reason:
        alike = sum(1 for _ in takewhile(lambda one: one == reason, reversed(shown)))
        which = f"These {alike} are not" if alike > 1 else "Not"
        st.caption(f"{which} here. {plain(_capital(reason))}.")


def _draw_toggle(lane: str, cls: type[Switch], facts: ModelFacts | None, reason: str | None, predict: Predict) -> None:
    """One switch with its fields; `reason` keeps it off, where it is not on already."""
    name = f"{lane}.{cls.kind}"
    on = is_on(sheet(), lane, cls)
    effect = "" if reason else _effect(None, cls, facts, predict)
    label = plain(cls.title) + (f" :gray[:small[{plain(effect)}]]" if effect else "")
    note = f"{plain(cls.summary)}\n\nSource: {plain(cls.source)}" if cls.source else plain(cls.summary)
    off = reason is not None and not on
    if keep(name, st.toggle(label, key=seed(name, False), help=note, disabled=off)):
        if (now := _effect(lane, cls, facts, predict)) and now != effect:
            st.caption(plain(f"As set: {now}"))
        _draw_fields(lane, cls, facts)


def _draw_fields(lane: str, cls: type[Switch], facts: ModelFacts | None) -> None:
    """The fields of a switch that is on, and why its present values do not fit if they do not."""
    for name, field in cls.model_fields.items():
        fits = fitting(cls, name, facts) if facts else None
        draw_field(f"{lane}.{cls.kind}.{name}", name.replace("_", " "), field, fits)
        for reason in refused(cls, name, facts) if facts else ():
            st.caption(f"Not here: {plain(reason)}.")
    if cls.hint:
        st.caption(plain(cls.hint))
    try:
        switch = read_switch(cls.kind, fields_of(sheet(), lane, cls.kind))
    except RecipeError as error:
        st.caption(f":red[{plain(str(error))}]")
        return
    if facts and (possible := switch.unfit(facts)):
        st.caption(f":red[Possible: {plain(possible)}.]")


def obstacle(cls: type[Switch], facts: ModelFacts | None, others: list[Switch]) -> str | None:
    """Why the switch cannot be switched on now: the model refuses it, or it clashes with what is on."""
    reason = impossible(cls, facts) if facts else None
    if reason:
        return reason
    probe = _first(cls, facts)
    return next((found for other in others if (found := probe.clash(other) or other.clash(probe))), None)


def _first(cls: type[Switch], facts: ModelFacts | None) -> Switch:
    """The switch as it is when it is switched on: defaults, or the first value that fits where they do not."""
    switch = cls()
    if facts is None or switch.unfit(facts) is None:
        return switch
    for name in cls.model_fields:
        for first in (fitting(cls, name, facts) or ())[:1]:
            return cls(**{name: first})
    return switch


def _effect(lane: str | None, cls: type[Switch], facts: ModelFacts | None, predict: Predict) -> str:
    """What the switch does by itself, in words: as it stands in the lane, or as it is switched on where none is given.

    Nothing while its values do not validate; they have their own line.
    """
    if lane is None:
        return predict(Recipe(switches={cls.kind: _first(cls, facts)}))
    try:
        switch = read_switch(cls.kind, fields_of(sheet(), lane, cls.kind))
    except RecipeError:
        return ""
    return predict(Recipe(switches={cls.kind: switch}))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")
