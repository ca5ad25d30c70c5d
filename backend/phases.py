"""The phases of a race, in order: ready, go, compare, measure. Each reads as what is seen on the page."""

from __future__ import annotations

from typing import Any

from backend.foretold import forecast_events
from backend.measurement import check_prompts, measure
from backend.raceway import SLICE_S, Raceway
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.replay import RaceView
from backend.scoring import compare_quality, compare_texts
from backend.verdict import build_verdict


def run_phases(way: Raceway) -> None:
    """A whole race.

    Raises:
        RecipeError: when the baseline cannot run as it was asked.
    """
    scored = get_ready(way)
    go(way, scored)
    if scored:
        compare_quality(way)
    measure(way)
    break_down(way)
    witness(way)
    if scored:
        compare_texts(way)
    way.write(("verdict", None, build_verdict(way.view, way.race)))


def get_ready(way: Raceway) -> bool:
    """Load, transform, warm up; returns whether quality has a meaning for this model."""
    way.start_lanes()
    way.phase("loading", 0, len(way.lanes), text="starting")
    loaded: dict[str, Any] = {}
    for count, (name, reply) in enumerate(way.each("load"), 1):
        loaded[name] = reply
        way.phase("loading", count, len(way.race.lanes), name)
    base = loaded.get("base")
    if base is None:
        raise lost_baseline(way.view)
    _check_length(way, base)
    check_prompts(way)
    way.write(("opened", None, way.open_event(base["prompt_tokens"], base["scored"])))
    way.write(*forecast_events(way.race, ModelFacts(**base["facts"]), base["prompt_tokens"]))
    way.phase("transforming", 0, len(way.lanes))
    for count, (name, _) in enumerate(way.each("transform"), 1):
        way.phase("transforming", count, len(way.race.lanes), name)
    ring = way.make_ring(base["vocab"]) if base["scored"] else None
    way.phase("warming up", 0, len(way.lanes))
    for count, (name, reply) in enumerate(way.each("warm", ring=ring, vocab=base["vocab"]), 1):
        way.write(("ready", name, reply))
        way.phase("warming up", count, len(way.race.lanes), name)
    return bool(base["scored"])


def _check_length(way: Raceway, base: dict[str, Any]) -> None:
    total = base["prompt_tokens"] + way.race.max_new_tokens
    if total > base["context"]:
        raise RecipeError(
            "prompt",
            f"{base['prompt_tokens']} tokens and {way.race.max_new_tokens} to write",
            f"at most {base['context']} tokens together, the model's context",
            "Shorten the prompt or ask for fewer tokens.",
        )


def go(way: Raceway, scored: bool) -> None:
    """The race: the next slice goes to the lane whose clock is furthest behind."""
    clocks = dict.fromkeys(way.lanes, 0.0)
    goal = way.race.max_new_tokens
    way.phase("racing", 0, goal)
    while clocks:
        name = min(clocks, key=lambda lane: clocks[lane])
        reply = way.call(name, "slice", budget_s=SLICE_S)
        if reply is None:
            clocks.pop(name)
            continue
        clocks[name] = reply["clock"]
        _write_slice(way, name, reply)
        way.breathe()  # every write of a race is followed by a breath: this is when the page draws what is new
        if name == "base" and scored:
            _score_slice(way, reply["tokens"])
        if reply["finished"]:
            clocks.pop(name)


def _write_slice(way: Raceway, name: str, reply: dict[str, Any]) -> None:
    events = [("tokens", name, reply["tokens"]), ("memory", name, reply["memory"])]
    events += [(kind, name, reply[kind]) for kind in ("routing", "speculation") if kind in reply]
    way.write(*events)
    goal = way.race.max_new_tokens
    way.phase(
        "racing", min((len(lane.ids) for lane in way.view.lanes.values() if not lane.failure), default=goal), goal
    )


def _score_slice(way: Raceway, tokens: dict[str, Any]) -> None:
    """Every variant scores the baseline's new tokens before the baseline's next turn overwrites their rows."""
    for name, scores in way.each("score", way.variants, tokens=tokens["ids"]):
        way.write(("scores", name, {"shape": "decode", "start": tokens["start"], **scores}))


def break_down(way: Raceway) -> None:
    """Where a step's time goes, off every clock."""
    for name, reply in way.each("breakdown"):
        way.write(("breakdown", name, reply))


def witness(way: Raceway) -> None:
    """Watch each lane run under the profiler and read its receipt again: last, since its memory is no lane's own."""
    for name, reply in way.each("witness"):
        way.write(("receipt", name, reply))


def lost_baseline(view: RaceView) -> RecipeError:
    """The baseline's failure as the race's."""
    failure = view.lanes["base"].failure or {}
    if "card" in failure:
        return RecipeError(**failure["card"])
    detail = f"{failure.get('cause')}: {failure.get('detail')}"
    return RecipeError("baseline", detail, "a baseline that loads", failure.get("remedy", "Choose another model."))
