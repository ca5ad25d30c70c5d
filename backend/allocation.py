"""Allocation: the level of every unit that loses least under a budget of bits per weight. Pure arithmetic, predicted.

A unit is a decoder layer or the head; a level says how its matrices are stored. Choosing one level for every unit, so
that the sum of KLDs is least and the bytes stay within a budget, is a multiple-choice knapsack. It is solved exactly,
for all budgets at once: unit by unit, of all sums reached so far only those are kept that no other beats in both bytes
and KLD (Nemhauser and Ullmann 1969). Layers of one shape reach few sums of bytes (19 units at 3 levels: some hundred),
so that the whole frontier takes milliseconds; an integer program (scipy.optimize.milp) would answer one budget a call.

That the KLDs of units quantized alone add up is an assumption: errors of two layers may strengthen or cancel each
other. On Gemma, from 5 to 8 bits, the sum was off by 11% at most (docs/log.md). It is always shown as predicted, with
what a race of the same mix measured, where there was one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from backend.packing import UnitBytes
from backend.recipe.base import RecipeError

LEAST_BITS = 2.0  # no level holds fewer
FIELD = "bits per weight"
Figures = Mapping[str, Mapping[str, Mapping[str, float]]]  # scheme -> unit -> {'kld': nats, ...}


@dataclass(frozen=True)
class Choice:
    """One level that a unit may have: bytes of its matrices, and KLD in nats with this unit alone at the level."""

    level: str
    size: float
    kld: float


@dataclass(frozen=True)
class Unit:
    """One decoder layer, or the head: numbers in its matrices, and the levels to choose from."""

    name: str
    weights: int
    choices: tuple[Choice, ...]

    def choice(self, level: str) -> Choice | None:
        """The choice of that level, or None."""
        return next((one for one in self.choices if one.level == level), None)


@dataclass(frozen=True)
class Allocation:
    """A level for every unit, with the bits per weight over all units and the KLD that they sum to, predicted."""

    levels: tuple[tuple[str, str], ...]  # unit, level
    bits_per_weight: float
    kld: float


@dataclass(frozen=True)
class Frontier:
    """Every allocation that no other beats in both bits and KLD, the fewest bits first."""

    units: tuple[Unit, ...]
    points: tuple[Allocation, ...]

    def at(self, budget: float) -> Allocation:
        """The least KLD within so many bits per weight.

        Raises:
            RecipeError: for a budget that cannot be met, with the smallest that can.
        """
        index = bisect_right(self.points, budget + 1e-9, key=lambda point: point.bits_per_weight)
        if not budget >= LEAST_BITS or index == 0:  # also true of NaN
            smallest = math.ceil(100 * self.points[0].bits_per_weight) / 100
            remedy = f"Give it at least {smallest:.2f}: every unit at its fewest bits, scales included."
            raise RecipeError(FIELD, f"{budget:g}", f"{smallest:.2f} or more", remedy)
        return self.points[index - 1]

    def of(self, levels: Mapping[str, str]) -> Allocation:
        """What these levels, chosen by hand, come to.

        Raises:
            RecipeError: for a unit without a level, or a level that it cannot have.
        """
        chosen = []
        for unit in self.units:
            level = levels.get(unit.name, "none")
            choice = unit.choice(level)
            if choice is None:
                allowed = f"one of {', '.join(one.level for one in unit.choices)}"
                raise RecipeError(f"level of {unit.name}", level, allowed, "Choose one of these.")
            chosen.append(choice)
        size, kld = sum(one.size for one in chosen), sum(one.kld for one in chosen)
        return _allocation(self.units, chosen, size, kld)

    def uniform(self, level: str) -> Allocation | None:
        """Every unit at one level, or None where a unit cannot have it."""
        if any(unit.choice(level) is None for unit in self.units):
            return None
        return self.of({unit.name: level for unit in self.units})


def units_of(sensitivity: Figures, sizes: Mapping[str, UnitBytes]) -> tuple[Unit, ...]:
    """The units that were measured, with every level at which they were.

    Args:
        sensitivity: of `int4` and `int8`, as an inspection holds it. To keep a unit costs no KLD.
        sizes: bytes of every unit at every level; see packing.unit_bytes.
    """
    units = []
    for name, size in sizes.items():
        found = {level: sensitivity.get(level, {}).get(name, {}).get("kld") for level in size.levels}
        if all(kld is None for kld in found.values()):
            continue
        found["keep"] = 0.0
        known = {level: max(0.0, kld) for level, kld in found.items() if kld is not None and math.isfinite(kld)}
        choices = tuple(Choice(level, size.levels[level], kld) for level, kld in known.items())
        units.append(Unit(name, size.weights, choices))
    return tuple(units)


@lru_cache(maxsize=16)
def frontier(units: tuple[Unit, ...]) -> Frontier:
    """The whole frontier, exact.

    Raises:
        RecipeError: where there is no unit, or one without a choice.
    """
    if not units or not all(unit.choices for unit in units):
        raise RecipeError("units", len(units), "units with at least one level each", "Measure the layers first.")
    sizes, klds = np.zeros(1), np.zeros(1)
    steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []  # for each point: the one before it, the choice
    for unit in units:
        size = np.array([one.size for one in unit.choices])
        kld = np.array([one.kld for one in unit.choices])
        every = (sizes[:, None] + size).ravel()  # (points x choices,)
        lost = (klds[:, None] + kld).ravel()
        order = np.lexsort((lost, every))
        best = np.minimum.accumulate(lost[order])
        kept = order[np.r_[True, lost[order][1:] < best[:-1]]]
        steps.append(np.divmod(kept, len(unit.choices)))
        sizes, klds = every[kept], lost[kept]
    points = (_traced(units, steps, last, sizes[last], klds[last]) for last in range(len(sizes)))
    return Frontier(units, tuple(points))


def _traced(
    units: tuple[Unit, ...], steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]], at: int, size: float, kld: float
) -> Allocation:
    """The choices that led to one point of the frontier."""
    chosen = []
    for unit, (before, choice) in zip(reversed(units), reversed(steps), strict=True):
        chosen.append(unit.choices[choice[at]])
        at = before[at]
    return _allocation(units, chosen[::-1], float(size), float(kld))


def _allocation(units: tuple[Unit, ...], chosen: list[Choice], size: float, kld: float) -> Allocation:
    levels = tuple((unit.name, choice.level) for unit, choice in zip(units, chosen, strict=True))
    return Allocation(levels, 8 * size / sum(unit.weights for unit in units), kld)
