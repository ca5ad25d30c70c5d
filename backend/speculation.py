"""The arithmetic of speculative decoding: what a round yields, what it costs, and where it stops paying.

Plain numbers of Leviathan, Kalman, Matias 2023 ("Fast inference from transformers via speculative decoding"):
`alpha` is the chance that a guess is accepted once its place is reached, `gamma` how many tokens are guessed a round,
`draft_cost` what one guess costs and `verify_cost` what one verifying call costs, both in one-token steps of the
model. `alpha` is accepted / tried; accepted / drafted is lower, since nothing after a rejection is tried.
"""

from __future__ import annotations

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
