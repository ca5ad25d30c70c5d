"""The forecast of the whole race on the Bench, before anything loads: lanes side by side, here and elsewhere."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.forecast import tokens_of
from backend.machine import this_machine
from backend.prediction import predict_race
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import Race
from backend.ui.forecast_rows import elsewhere_rows, lane_rows, machine_line, precision_line, summary
from backend.ui.text import plain

CONTEXT = "forecast_context"
NOTE = (
    "Computed from the config alone. A ceiling is what no kernel exceeds: decode by reading every weight once a token, "
    "prefill by two operations a parameter and token. What a run takes is measured, and is slower."
)


def draw_forecast(facts: ModelFacts | None, race: Race | None) -> None:
    """The forecast, folded away; one line where it cannot be made."""
    with st.expander("Forecast, predicted"):
        if facts is None or race is None:
            st.caption("The forecast stands here once model and setting are valid.")
            return
        prompt, tokens = tokens_of(race, facts)
        context = _context(facts, tokens)
        try:
            predicted = predict_race(facts, race.lanes, min(prompt, context), context, _machine(facts))
        except RecipeError as error:
            st.caption(f":red[{plain(str(error))}]")
            return
        _draw(predicted)


def _context(facts: ModelFacts, tokens: int) -> int:
    """Tokens in the cache: prompt and answer until the person says otherwise."""
    if (st.session_state.get(CONTEXT) or 0) > facts.context:  # of the model that was chosen before
        st.session_state[CONTEXT] = facts.context
    chosen = st.number_input(
        "Context, tokens",
        1,
        facts.context,
        value=None,
        step=1,
        key=CONTEXT,
        placeholder=f"{tokens:,}: prompt and answer",
        help="Tokens in the KV cache. They move the cache, the peak of the run and the decode ceiling.",
    )
    return int(chosen or tokens)


def _machine(facts: ModelFacts) -> Any:
    return this_machine(facts.devices[0].split(":")[0])


def _draw(predicted: dict[str, Any]) -> None:
    st.markdown(table(lane_rows(predicted)))
    for line in (machine_line(predicted), precision_line(predicted), summary(predicted)):
        st.caption(plain(line))
    st.markdown("**On other machines**")
    st.markdown(table(elsewhere_rows(predicted)))
    st.caption(plain(f"Bandwidth from datasheets, speeds predicted from it. On a GPU a lane is loaded in bf16. {NOTE}"))


def table(rows: list[list[str]]) -> str:
    """Rows of plain text as a table in markdown, the first row its head."""
    lines = [[plain(cell) for cell in row] for row in rows]
    lines.insert(1, [":--"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
