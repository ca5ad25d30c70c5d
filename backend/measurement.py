"""The measurement after the race: whole requests in pairs, until the ratios are known or the time is spent.

A round asks one prompt of every lane; the next round asks the next prompt of the set. The lanes' order is reversed
from one asking of a prompt to the next (ABBA) and from one prompt to the next. All rounds go into the journal; which
of them count is found afterwards (backend/measured.py), by the same function here and in the verdict.
"""

from __future__ import annotations

import time
from typing import Any

from backend.conditions import Conditions
from backend.measured import measured
from backend.raceway import Raceway
from backend.recipe.base import RecipeError
from backend.replay import RaceView

MOST_ROUNDS = 600
FEWEST_ROUNDS = 4
FEWEST_PAIRS = 6
AIMED_ROUNDS = 20  # pairs buy more certainty than long requests
FEWEST_TOKENS = 8


def check_prompts(way: Raceway) -> None:
    """Refuse a prompt set of which one does not fit into the model's context, before anything is transformed.

    Raises:
        RecipeError: with the line of the prompt that is too long.
    """
    if not way.race.measure.budget_s:
        return
    for line, asked in enumerate(_prompt_set(way, way.race.measure.tokens), 1):
        if asked["prompt_tokens"] + FEWEST_TOKENS > asked["context"]:
            listed = way.race.measure.prompt_set == "list"
            raise RecipeError(
                "measure.prompts" if listed else "prompt",
                f"{f'line {line}: ' if listed else ''}{asked['prompt_tokens']} tokens, {FEWEST_TOKENS} to write",
                f"at most {asked['context']} tokens together, the model's context",
                f"Shorten line {line}." if listed else "Shorten the prompt.",
            )


def measure(way: Raceway) -> None:
    """Ask whole requests of every lane in turn, and watch the machine meanwhile."""
    budget = way.race.measure.budget_s
    if not budget or "base" not in way.lanes:
        return
    tokens = _request_tokens(way)
    prompts = _prompt_set(way, tokens)
    way.write(("prompts", None, {"mode": way.race.measure.prompt_set, "prompts": prompts}))
    began = time.monotonic()
    way.phase("measuring", 0, budget)
    conditions = Conditions()
    with way.watched(conditions.glance):
        for number in range(MOST_ROUNDS):
            _round(way, number, len(prompts), tokens)
            conditions.look()
            spent = time.monotonic() - began
            way.phase("measuring", min(spent, budget), budget, text=f"round {number + 1}")
            if number + 1 >= max(FEWEST_ROUNDS, len(prompts)) and (spent > budget or known(way.view, way)):
                break
    way.write(("conditions", None, conditions.facts()))


def _round(way: Raceway, number: int, prompts: int, tokens: int) -> None:
    """One prompt, asked of every lane."""
    turn, prompt = divmod(number, prompts)
    order = list(way.lanes) if (turn + prompt) % 2 == 0 else list(way.lanes)[::-1]
    replies = list(way.each("request", order, tokens=tokens, prompt=prompt))
    for place, (name, reply) in enumerate(replies):
        way.write(("request", name, {"round": number, "order": place, **reply}))


def known(view: RaceView, way: Raceway) -> bool:
    """Whether every variant's interval is as narrow as asked and agrees with its estimate, with six pairs at least."""
    so_far = measured(view)
    for name in way.variants:
        ratio = so_far.ratio(name)
        if ratio is None or ratio.pairs < FEWEST_PAIRS or ratio.width > way.race.measure.width or ratio.is_open:
            return False
    return True


def _prompt_set(way: Raceway, tokens: int) -> list[dict[str, Any]]:
    """What the lanes are asked, as the baseline says."""
    reply = way.call("base", "prompt_set", tokens=tokens)
    return list(reply["prompts"]) if reply else []


def _request_tokens(way: Raceway) -> int:
    """Tokens a request: as asked, or fewer where the budget would not hold enough rounds."""
    speeds = [way.view.lanes[name].tokens_per_s or 1.0 for name in way.lanes]
    fitting = way.race.measure.budget_s / AIMED_ROUNDS / sum(1 / speed for speed in speeds)
    return max(FEWEST_TOKENS, min(way.race.measure.tokens, int(fitting)))
