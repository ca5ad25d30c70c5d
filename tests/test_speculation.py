from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.speculation import break_even, expected_acceptance_rate, expected_tokens, predicted_speedup

ALPHAS = st.floats(0.0, 1.0)
GAMMAS = st.integers(1, 16)
DRAFT_COSTS = st.floats(0.0, 1.0)
VERIFY_COSTS = st.floats(0.5, 4.0)


def test_expected_tokens_by_hand() -> None:
    assert expected_tokens(0.5, 2) == 1.75
    assert expected_tokens(0.8, 1) == pytest.approx(1.8)
    assert expected_tokens(0.0, 7) == 1.0
    assert expected_tokens(1.0, 7) == 8.0


def test_papers_closed_form() -> None:
    assert expected_tokens(0.7, 5) == pytest.approx((1 - 0.7**6) / (1 - 0.7))


def test_predicted_speedup_by_hand() -> None:
    assert predicted_speedup(0.5, 2, draft_cost=0.125, verify_cost=1.5) == 1.0
    assert predicted_speedup(1.0, 4, draft_cost=0.0, verify_cost=1.0) == 5.0


def test_break_even_by_hand() -> None:
    # One guess at a tenth of a step, verified at the price of one step: 1 + alpha = 1.1.
    assert break_even(1, 0.1, 1.0) == pytest.approx(0.1)
    # Two guesses that cost three quarters together: 1 + a + a^2 = 1.75 at a = one half.
    assert break_even(2, 0.125, 1.5) == pytest.approx(0.5)


def test_break_even_at_its_ends() -> None:
    assert break_even(4, 0.0, 1.0) == 0.0
    assert break_even(4, 1.0, 1.5) == 1.0


def test_acceptance_rate_is_lower_than_alpha() -> None:
    assert expected_acceptance_rate(0.5, 2) == 0.375
    assert expected_acceptance_rate(1.0, 3) == 1.0


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        expected_tokens(alpha, 3)


def test_rounds_that_cost_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="cost"):
        predicted_speedup(0.5, 2, draft_cost=0.0, verify_cost=0.0)
    with pytest.raises(ValueError, match="gamma"):
        expected_acceptance_rate(0.5, 0)


@given(ALPHAS, GAMMAS)
def test_a_round_yields_one_to_gamma_plus_one(alpha: float, gamma: int) -> None:
    assert 1.0 <= expected_tokens(alpha, gamma) <= gamma + 1
    assert expected_acceptance_rate(alpha, gamma) <= alpha + 1e-9


@given(GAMMAS, DRAFT_COSTS, VERIFY_COSTS, ALPHAS)
def test_above_break_even_it_pays_and_below_it_does_not(gamma: int, draft: float, verify: float, alpha: float) -> None:
    edge = break_even(gamma, draft, verify)
    assert 0.0 <= edge <= 1.0
    speedup = predicted_speedup(alpha, gamma, draft, verify)
    if alpha > edge:
        assert speedup >= 1.0 - 1e-9
    elif alpha < edge:
        assert speedup <= 1.0 + 1e-9
