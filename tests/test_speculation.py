from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.engine.speculate import Speculation
from backend.speculation import (
    break_even,
    expected_acceptance_rate,
    expected_tokens,
    facts_of_drafting,
    predicted_speedup,
    shares_by_place,
)

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


def counted() -> dict[str, object]:
    """Two rounds of two guesses, one kept whole and one not at all, and a round without a guess; 10 ms a step."""
    counts = Speculation("draft", plain_rounds=1, draft_s=0.004, verify_s=0.026, plain_s=0.01)
    counts.record(2, 2)
    counts.record(2, 0)
    return counts.as_dict()


def test_predicted_beside_measured_by_hand() -> None:
    facts = facts_of_drafting(counted(), 0.01)
    assert facts["alpha"] == pytest.approx(2 / 3)
    assert facts["by_place"] == [0.5, 1.0]
    cost = 0.4 + 2.6 + 1  # in plain steps
    assert facts["speedup_measured"] == pytest.approx((2 + 2 + 1) / cost)
    assert facts["speedup_predicted"] == pytest.approx((2 * (1 + 2 / 3 + 4 / 9) + 1) / cost)
    assert facts["break_even"] == pytest.approx(break_even(2, 0.1, 1.3))
    assert facts["pays"] is True


def test_a_trees_places_are_counted_once() -> None:
    chain, tree = Speculation(draft_s=0.01, verify_s=0.01), Speculation(draft_s=0.01, verify_s=0.01)
    chain.record(2, 1)
    tree.record(6, 1, depth=2, tried=2)
    ours, theirs = (facts_of_drafting(one.as_dict(), 0.01) for one in (tree, chain))
    assert ours["break_even"] == theirs["break_even"]
    assert ours["speedup_predicted"] == theirs["speedup_predicted"]


def test_without_a_plain_step_or_a_guess_theory_says_nothing() -> None:
    assert "speedup_predicted" not in facts_of_drafting(counted(), None)
    assert "break_even" not in facts_of_drafting(Speculation().as_dict(), 0.01)
    assert shares_by_place({}) == []
