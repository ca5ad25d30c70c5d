"""The allocation against brute force and an integer program, its place under the uniform line, and budgets refused."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from backend.allocation import Choice, Frontier, Unit, frontier, units_of
from backend.packing import UnitBytes, unit_bytes
from backend.parts import weight_parts
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.switches.mixed import MixedPrecision

GEMMA = ModelFacts("gemma", "gemma3_text", 18, 640, 2048, 4, 1, 256, 262144, 32768, 268_098_176, 167_772_160)
BITS = {"int4": 5.0, "int8": 8.1, "keep": 32.0}
KLD = st.floats(0, 10, allow_nan=False)
WEIGHTS = st.integers(1, 1000)


@st.composite
def some_units(draw: Any, most: int = 8) -> tuple[Unit, ...]:
    """Units of any size; the KLD of a level is drawn freely: more bits need not be better."""
    made = []
    for number in range(draw(st.integers(1, most))):
        weights = draw(WEIGHTS)
        choices = [Choice(level, float(math.ceil(weights * bits / 8)), draw(KLD)) for level, bits in BITS.items()]
        made.append(Unit(str(number), weights, tuple(choices)))
    return tuple(made)


def every_allocation(units: tuple[Unit, ...]) -> list[tuple[float, float]]:
    """Bytes and KLD of all 3^n allocations."""
    mixes = product(*(unit.choices for unit in units))
    return [(sum(one.size for one in mix), sum(one.kld for one in mix)) for mix in mixes]


def bits(units: tuple[Unit, ...], size: float) -> float:
    return 8 * size / sum(unit.weights for unit in units)


@settings(max_examples=30, deadline=None)
@given(some_units(), st.floats(2, 40))
def test_no_allocation_of_all_is_better_than_the_frontiers(units: tuple[Unit, ...], budget: float) -> None:
    front, every = frontier(units), every_allocation(units)
    within = [kld for size, kld in every if bits(units, size) <= budget]
    if not within:
        with pytest.raises(RecipeError):
            front.at(budget)
        return
    found = front.at(budget)
    assert found.bits_per_weight <= budget + 1e-9
    assert found.kld == pytest.approx(min(within), abs=1e-9)
    by_hand = front.of(dict(found.levels))
    assert (by_hand.bits_per_weight, by_hand.kld) == pytest.approx((found.bits_per_weight, found.kld))


@settings(max_examples=30, deadline=None)
@given(some_units())
def test_the_frontier_holds_every_budget_at_which_something_changes(units: tuple[Unit, ...]) -> None:
    front, best, steps = frontier(units), math.inf, []
    for size, kld in sorted(every_allocation(units)):
        if kld < best - 1e-9:
            best = kld
            steps.append((bits(units, size), kld))
    for budget, kld in steps:
        assert front.at(budget).kld == pytest.approx(kld, abs=1e-8)
    assert all(a.bits_per_weight < b.bits_per_weight for a, b in zip(front.points, front.points[1:], strict=False))
    assert all(a.kld > b.kld for a, b in zip(front.points, front.points[1:], strict=False))


@settings(max_examples=50, deadline=None)
@given(some_units(12), st.floats(5.2, 40))
def test_at_every_budget_it_is_at_or_below_the_uniform_line(units: tuple[Unit, ...], budget: float) -> None:
    front = frontier(units)
    for level in BITS:
        uniform = front.uniform(level)
        assert uniform is not None
        for given_bits in (uniform.bits_per_weight, budget):
            if uniform.bits_per_weight <= given_bits:
                assert front.at(given_bits).kld <= uniform.kld + 1e-9


def of_gemmas_shape(seed: int = 0) -> Frontier:
    """Eighteen equal layers and a head of most weights, KLDs drawn: int8 costs a hundredth of int4."""
    sizes = unit_bytes(weight_parts(GEMMA), MixedPrecision(), 4)
    fours = np.random.default_rng(seed).lognormal(-4, 1, len(sizes))
    found = {level: {unit: {"kld": float(kld) * scale} for unit, kld in zip(sizes, fours, strict=True)}
             for level, scale in (("int4", 1.0), ("int8", 0.01))}  # fmt: skip
    return frontier(units_of(found, sizes))


@pytest.mark.parametrize("budget", [5.1, 5.5, 6.0, 6.9, 7.5, 8.2, 11.0])
def test_an_integer_program_finds_the_same(budget: float) -> None:
    front = of_gemmas_shape()
    choices = [one for unit in front.units for one in unit.choices]
    one_each = np.zeros((len(front.units), len(choices)))
    for row in range(len(front.units)):
        one_each[row, 3 * row : 3 * row + 3] = 1
    weights = sum(unit.weights for unit in front.units)
    found = milp(
        [one.kld for one in choices],
        integrality=np.ones(len(choices)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.array([[8 * one.size / weights for one in choices]]), 0, budget),
        ],
        options={"mip_rel_gap": 0},
    )
    assert front.at(budget).kld == pytest.approx(found.fun, rel=1e-6)


def test_bits_are_those_that_are_held_with_scales() -> None:
    front = of_gemmas_shape()
    fours, eights, floats = (front.uniform(level) for level in ("int4", "int8", "keep"))
    assert fours is not None
    assert eights is not None
    assert floats is not None
    assert fours.bits_per_weight == pytest.approx(5.0)  # two codes a byte, 32 bits for a group of 32
    assert 8.05 < eights.bits_per_weight < 8.1  # 48 bits a row of 640 to 2,048 numbers
    assert floats.bits_per_weight == 32.0
    assert sum(unit.weights for unit in front.units) == 18 * 5_570_560 + 167_772_160
    assert 20 < len(front.points) < 2000


def test_the_layer_that_suffers_keeps_its_bits() -> None:
    sizes = {unit: UnitBytes(100, {"int4": 62.5, "int8": 101.25, "keep": 400.0}) for unit in ("0", "1", "head")}
    found = {"int4": {"0": {"kld": 0.1}, "1": {"kld": 2.0}, "head": {"kld": 0.2}},
             "int8": {"0": {"kld": 0.01}, "1": {"kld": 0.02}, "head": {"kld": 0.0}}}  # fmt: skip
    front = frontier(units_of(found, sizes))
    assert dict(front.at(5.0).levels) == {"0": "int4", "1": "int4", "head": "int4"}
    assert dict(front.at(6.1).levels) == {"0": "int4", "1": "int8", "head": "int4"}  # 8 * 226.25 / 300 = 6.03
    assert front.at(6.1).kld == pytest.approx(0.1 + 0.02 + 0.2)
    assert dict(front.at(100).levels) == {"0": "keep", "1": "keep", "head": "int8"}  # of equal KLD the fewer bytes
    assert front.of({"0": "int8", "1": "int4", "head": "int8"}).kld == pytest.approx(2.01)


def test_a_level_that_was_not_measured_or_is_no_number_cannot_be_chosen() -> None:
    sizes = {unit: UnitBytes(10, {"int4": 6.0, "int8": 10.0, "keep": 40.0}) for unit in ("0", "1")}
    found = {"int4": {"0": {"kld": math.nan}, "1": {"kld": -1e-9}}, "int8": {"0": {"kld": 0.5}}}
    first, second = units_of(found, sizes)
    assert [one.level for one in first.choices] == ["int8", "keep"]
    assert [(one.level, one.kld) for one in second.choices] == [("int4", 0.0), ("keep", 0.0)]
    assert frontier((first, second)).uniform("int4") is None
    with pytest.raises(RecipeError, match="level of 0"):
        frontier((first, second)).of({"0": "int4", "1": "keep"})


@pytest.mark.parametrize("budget", [1.9, 0.0, -3.0, math.nan, -math.inf, 4.5])
def test_a_budget_that_cannot_be_met_names_the_smallest_that_can(budget: float) -> None:
    with pytest.raises(RecipeError) as caught:
        of_gemmas_shape().at(budget)
    assert caught.value.field == "bits per weight"
    assert caught.value.allowed == "5.00 or more"
    assert of_gemmas_shape().at(5.0).bits_per_weight == pytest.approx(5.0)


def test_a_budget_below_two_bits_is_refused_even_where_a_level_held_less() -> None:
    unit = Unit("0", 100, (Choice("int1", 12.5, 1.0), Choice("keep", 400.0, 0.0)))
    with pytest.raises(RecipeError):
        frontier((unit,)).at(1.5)


def test_nothing_to_choose_from_is_said() -> None:
    for units in ((), (Unit("0", 10, ()),)):
        with pytest.raises(RecipeError, match="Measure the layers first"):
            frontier(units)
