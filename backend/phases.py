"""The phases of a race, in order: ready, go, compare, measure. Each reads as what is seen on the page."""

from __future__ import annotations

import time
from typing import Any

from backend.metrics import Request, paired_ratio
from backend.raceway import SLICE_S, Raceway
from backend.recipe.base import RecipeError
from backend.replay import RaceView
from backend.verdict import build_verdict

MOST_ROUNDS = 200
FEWEST_ROUNDS = 3


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
        raise _lost_baseline(way.view)
    _check_length(way, base)
    way.write(("opened", None, way.open_event(base["prompt_tokens"], base["scored"])))
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
    if "speculation" in reply:
        events.append(("speculation", name, reply["speculation"]))
    way.write(*events)
    goal = way.race.max_new_tokens
    way.phase("racing", min((len(lane.ids) for lane in way.view.lanes.values() if not lane.failure), default=goal), goal)


def _score_slice(way: Raceway, tokens: dict[str, Any]) -> None:
    """Every variant scores the baseline's new tokens before the baseline's next turn overwrites their rows."""
    for name, scores in way.each("score", way.variants, tokens=tokens["ids"]):
        way.write(("scores", name, {"shape": "decode", "start": tokens["start"], **scores}))


def compare_quality(way: Raceway) -> None:
    """Prefill scores, perplexity on held-out text, answers: all off the clock."""
    for _ in way.each("release"):
        pass
    _score_prompt(way)
    total = done = 1
    way.phase("scoring", 0, total, text="held-out text")
    while done <= total:
        for name, reply in way.each("perplexity"):
            total = reply["total"]
            if reply["done"]:
                way.write(("perplexity", name, reply))
        way.phase("scoring", min(done, total), total or 1, text="held-out text")
        done += 1
    for name, reply in way.each("answers"):
        if reply:
            way.write(("answers", name, reply))


def compare_texts(way: Raceway) -> None:
    """Overlap of the texts, by the baseline's lane alone: so it comes after the measurement, which it would slow."""
    base = way.view.baseline
    pairs = {name: [base.text, way.view.lanes[name].text] for name in way.variants} if base else {}
    for name, value in (way.call("base", "overlap", texts=pairs) or {}).items():
        way.write(("overlap", name, {"rouge_l": value}))


def _score_prompt(way: Raceway) -> None:
    """Prefill, in the prompt's shape: the baseline publishes rows a ring at a time, the variants compare theirs."""
    if way.view.opened["prompt_tokens"] < 2:
        return
    held = dict(way.each("hold_prompt"))
    if "base" not in held:
        return
    rows, step = held["base"]["rows"], held["base"]["ring_rows"]
    for start in range(0, rows, step):
        count = min(step, rows - start)
        way.call("base", "publish_prompt", start=start, count=count)
        for name, scores in way.each("score_prompt", way.variants, start=start, count=count):
            way.write(("scores", name, {"shape": "prefill", "start": start, **scores}))
    for _ in way.each("release"):
        pass


def measure(way: Raceway) -> None:
    """Whole requests, the lanes' order reversed each round, until the intervals are narrow or the time is spent."""
    budget = way.race.measure.budget_s
    for name, reply in way.each("breakdown"):
        way.write(("breakdown", name, reply))
    if not budget or "base" not in way.lanes:
        return
    tokens = _request_tokens(way)
    began = time.monotonic()
    way.phase("measuring", 0, budget)
    for turn in range(MOST_ROUNDS):
        order = list(way.lanes) if turn % 2 == 0 else list(way.lanes)[::-1]  # A B B A
        replies = list(way.each("request", order, tokens=tokens))
        if turn == 0:
            continue  # the first round warms up and is not counted
        for place, (name, reply) in enumerate(replies):
            way.write(("request", name, {"round": turn, "order": place, **reply}))
        spent = time.monotonic() - began
        way.phase("measuring", min(spent, budget), budget, text=f"round {turn}")
        if turn >= FEWEST_ROUNDS and (spent > budget or _narrow(way)):
            break


def _request_tokens(way: Raceway) -> int:
    """Tokens a request: as asked, or fewer where ten rounds would not fit into the budget."""
    speeds = [way.view.lanes[name].tokens_per_s or 1.0 for name in way.lanes]
    fitting = way.race.measure.budget_s / 10 / sum(1 / speed for speed in speeds)
    return max(8, min(way.race.measure.tokens, int(fitting)))


def _narrow(way: Raceway) -> bool:
    """Whether every variant's interval is as narrow as asked, with six pairs at least."""
    base = [Request(tuple(r["emitted_s"])).tpot_s for r in way.view.lanes["base"].requests]
    for name in way.variants:
        ours = [Request(tuple(r["emitted_s"])).tpot_s for r in way.view.lanes[name].requests]
        if len(ours) < 6 or paired_ratio(base[: len(ours)], ours).width > way.race.measure.width:
            return False
    return True


def _lost_baseline(view: RaceView) -> RecipeError:
    """The baseline's failure as the race's."""
    failure = view.lanes["base"].failure or {}
    if "card" in failure:
        return RecipeError(**failure["card"])
    detail = f"{failure.get('cause')}: {failure.get('detail')}"
    return RecipeError("baseline", detail, "a baseline that loads", failure.get("remedy", "Choose another model."))
