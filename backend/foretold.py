"""Foretold: what was forecast of a race's lanes as it began, and beside it what was then measured.

    {lane: [{"figure", "predicted", "measured", "error" (measured / predicted - 1)}]}

`figure` is 'weights_bytes', 'kv_bytes', 'run_bytes' (peak of a request), 'tokens_per_s' and 'prefill_s'; of the last
two the prediction is a ceiling and a floor, which nothing should pass.
"""

from __future__ import annotations

from typing import Any

from backend.machine import Machine, this_machine
from backend.prediction import predict_lane
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import Race
from backend.replay import LaneView, RaceView

Told = tuple[str, str | None, dict[str, Any]]


def forecast_events(race: Race, facts: ModelFacts, prompt: int) -> list[Told]:
    """A `forecast` event a lane; none for one whose draft is not there, which its lane says by itself.

    The ceiling is taken at the prompt's length, where a step has least to read, so that it holds for the whole answer.
    """
    tokens = min(facts.context, prompt + race.max_new_tokens)
    told: list[Told] = []
    for name, recipe in race.lanes:
        try:
            data = predict_lane(facts, recipe, name, prompt, tokens, prompt, _machine(facts))
        except RecipeError:
            continue
        told.append(("forecast", name, data))
    return told


def _machine(facts: ModelFacts) -> Machine | None:
    return this_machine(facts.devices[0].split(":")[0])


def compared(view: RaceView) -> dict[str, list[dict[str, Any]]]:
    """Forecast beside measured, by lane; what was not measured is left out."""
    verdict = (view.verdict or {}).get("lanes", {})
    found = {name: _lane(lane, verdict.get(name, {})) for name, lane in view.lanes.items() if lane.forecast}
    return {name: rows for name, rows in found.items() if rows}


def _lane(lane: LaneView, figures: dict[str, Any]) -> list[dict[str, Any]]:
    measured = {
        "weights_bytes": lane.memory.get("weights_bytes"),
        "kv_bytes": lane.memory.get("kv_bytes"),
        "run_bytes": figures.get("request_peak_bytes") or lane.memory.get("peak_bytes"),
        "tokens_per_s": figures.get("tokens_per_s"),
        "prefill_s": figures.get("ttft_s"),
    }
    rows = []
    for figure, value in measured.items():
        predicted = lane.forecast.get(figure)
        if value and predicted:
            rows.append({"figure": figure, "predicted": predicted, "measured": value, "error": value / predicted - 1})
    return rows
