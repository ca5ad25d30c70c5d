"""The arithmetic of speculative decoding: what a round yields, what it costs, and where it stops paying.

Plain numbers of Leviathan, Kalman, Matias 2023 ("Fast inference from transformers via speculative decoding"):
`alpha` is the chance that a guess is accepted once its place is reached, `gamma` how many tokens are guessed a round,
`draft_cost` what one guess costs and `verify_cost` what one verifying call costs, both in one-token steps of the
model. `alpha` is accepted / tried; accepted / drafted is lower, since nothing after a rejection is tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scipy.optimize import brentq


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens a round yields on average: (1 - alpha^(gamma + 1)) / (1 - alpha), the model's own token included.

    Raises:
        ValueError: for an alpha outside 0 to 1 or a gamma below 0.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is {alpha}, and must lie in 0 to 1")
    if gamma < 0:
        raise ValueError(f"gamma is {gamma}, and must be 0 or more")
    return sum(alpha**place for place in range(gamma + 1))  # the sum of the series: no 0 / 0 at alpha 1


def expected_acceptance_rate(alpha: float, gamma: int) -> float:
    """Accepted / drafted that goes with `alpha`: what a run shows, where the theory speaks of places reached."""
    if gamma < 1:
        raise ValueError(f"gamma is {gamma}, and must be 1 or more")
    return (expected_tokens(alpha, gamma) - 1) / gamma


def predicted_speedup(alpha: float, gamma: int, draft_cost: float, verify_cost: float = 1.0) -> float:
    """Tokens a round yields over what the round costs, against one token a step.

    Raises:
        ValueError: where a round would cost nothing.
    """
    cost = gamma * draft_cost + verify_cost
    if cost <= 0:
        raise ValueError(f"a round costs {cost}, and must cost something")
    return expected_tokens(alpha, gamma) / cost


def break_even(gamma: int, draft_cost_ratio: float, verify_cost_ratio: float) -> float:
    """The alpha at which speculation stops paying: below it a round costs more than its tokens do without.

    Returns:
        alpha in 0 to 1; 0 where it pays with no guess accepted, 1 where not even perfect guesses pay.
    """

    def gain(alpha: float) -> float:
        return predicted_speedup(alpha, gamma, draft_cost_ratio, verify_cost_ratio) - 1.0

    if gain(0.0) >= 0.0:
        return 0.0
    if gain(1.0) <= 0.0:
        return 1.0
    return float(brentq(gain, 0.0, 1.0, xtol=1e-12))


def facts_of_drafting(seen: Mapping[str, Any], plain_s: float | None) -> dict[str, Any]:
    """What a lane's counts say: acceptance and cost, and with a plain step's seconds what theory makes of them.

    `speedup_predicted` is what the acceptance and the costs seen should give if every place kept its guesses equally
    often, `speedup_measured` what the same rounds did give. Both are of the lane's own one-token steps, rounds without
    a guess included; they part where acceptance differs by place or bunches in rounds.

    Args:
        seen: Speculation.as_dict() of engine/speculate.py; journals of the first version lack `lengths`.
    """
    kept = ("acceptance_rate", "alpha", "mean_acceptance_length", "draft_cost_share")
    facts: dict[str, Any] = {name: seen[name] for name in kept}
    facts["by_place"] = shares_by_place(seen)
    rounds, drafted = seen["rounds"], seen["drafted"]
    if not (plain_s and rounds and drafted):
        return facts
    lengths = dict(enumerate(seen.get("lengths") or ())) or {round(drafted / rounds): rounds}
    places = sum(length * count for length, count in lengths.items())  # a tree drafts several a place
    width = max(1, round(places / rounds))
    facts["break_even"] = break_even(width, seen["draft_s"] / places / plain_s, seen["verify_s"] / rounds / plain_s)
    facts["pays"] = seen["alpha"] > facts["break_even"]
    plain_rounds = seen.get("plain_rounds", 0)
    cost = (seen["draft_s"] + seen["verify_s"]) / plain_s + plain_rounds
    expected = sum(count * expected_tokens(seen["alpha"], length) for length, count in lengths.items())
    facts["speedup_predicted"] = (expected + plain_rounds) / cost
    facts["speedup_measured"] = (seen["accepted"] + rounds + plain_rounds) / cost
    return facts


def shares_by_place(seen: Mapping[str, Any]) -> list[float]:
    """Of the guesses that were judged at each place, the share that was kept; up to the last place ever judged."""
    pairs = zip(seen.get("by_place", ()), seen.get("tried", ()), strict=True)
    return [kept / tried for kept, tried in pairs if tried]
