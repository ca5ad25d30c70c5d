"""Mixed precision: every decoder layer, and the output head, at a level of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import ClassVar, Literal, get_args

from pydantic import Field, field_validator

from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.stores import Ground, Matrix, Store, Stored, floats, int4_groups, int8_rows, split_rows
from backend.recipe.switch import Group, Switch
from backend.recipe.switches.precision import Int4WeightOnly

Rest = Literal["int4", "int8", "keep"]  # levels that every unit may have
Level = Literal["int4", "split", "int8", "keep"]
LEVELS: tuple[Level, ...] = get_args(Level)  # the fewest bits first
HEAD = "head"
SPLIT: Level = "split"  # of the head alone: the rows of the likeliest tokens int8, the others int4
FIELD = "switches.mixed_precision.levels"
ALLOWED = "entries UNIT:LEVEL, for example 0-3:int4 7:keep head:int8"
MOST_LAYERS = 1024
_ENTRY = re.compile(r"(?:([0-9]{1,4})(?:-([0-9]{1,4}))?|head):(\w+)")


class MixedPrecision(Switch):
    """Weights int4, int8 or float by decoder layer; activations stay float."""

    kind: ClassVar[str] = "mixed_precision"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "Mixed precision by layer"
    summary: ClassVar[str] = (
        "Few bits where the model bears them and more where it does not: any size between int4 and int8."
    )
    source: ClassVar[str] = "Dong et al. 2019 (HAWQ), with measured KLD in the place of curvature"
    hint: ClassVar[str] = "Inspect, tab Sensitivity, finds the levels for a budget of bits per weight."
    kernel_bytes: ClassVar[int] = 9 * 10**6
    decoders_only: ClassVar[str] = "a decoder: levels stand for its layers and its output head"

    levels: str = Field(
        "",
        max_length=2000,
        description="UNIT:LEVEL, a unit being a decoder layer, a range of them, or head; levels int4, int8, keep, and "
        "for the head split",
        examples=["0-3:int4 7:keep head:int8"],
    )
    rest: Rest = Field("int8", description="the level of every layer, and of the head, that levels does not name")
    group_size: Literal[32, 64, 128] = Field(32, description="weights that share a scale in int4")
    likely: float = Field(
        0.0625, gt=0.0, le=0.5, description="share of a split head's rows that are int8: those of the likeliest tokens"
    )
    split_group: Literal[32, 64, 128] = Field(
        128, description="weights that share a scale in the int4 rows of a split head"
    )

    @field_validator("levels")
    @classmethod
    def _in_order(cls, value: str) -> str:
        return write_levels(read_levels(value))  # one way to say a thing, so that equal recipes have equal keys

    @property
    def label(self) -> str:
        named = read_levels(self.levels)
        parts = [f"{_words(unit for unit in named if named[unit] == level)} {level}" for level in set_of(named)]
        return f"mixed: {', '.join([*parts, f'else {self.rest}' if parts else f'all {self.rest}'])}"

    @property
    def multiplies(self) -> str:
        """Of a part of the layers."""
        return "bfloat16" if {"int4", SPLIT} & {*read_levels(self.levels).values(), self.rest} else ""

    def level_stores(self, width: int) -> dict[str, Store]:
        """How a matrix is held at each level."""
        return {
            "int4": int4_groups(self.group_size, width),
            SPLIT: split_rows(self.likely, self.split_group, width),
            "int8": int8_rows,
            "keep": floats(width),
        }

    def stores(self, ground: Ground) -> Stored:
        """The mean over the layers, which are of one shape, and the head."""
        levels, stores = self.by_unit(ground.layers), self.level_stores(ground.width)
        head = levels.pop(HEAD)

        def body(matrix: Matrix) -> float:
            return sum(stores[level](matrix) for level in levels.values()) / max(1, ground.layers)

        return Stored(body, None if head == "keep" else stores[head])

    def by_unit(self, layers: int) -> dict[str, Level]:
        """The level of every unit of a model with so many decoder layers, the head last."""
        named = read_levels(self.levels)
        return {unit: named.get(unit, self.rest) for unit in units(layers)}

    def missing(self, layers: int) -> list[str]:
        """Units that are named and that such a model has not."""
        return [unit for unit in read_levels(self.levels) if unit not in units(layers)]

    def refuse(self, facts: ModelFacts) -> str | None:
        if missing := self.missing(facts.layers):
            return f"layers 0 to {facts.layers - 1} and head: there is no layer {', '.join(missing)}"
        levels = self.by_unit(facts.layers).values()
        if set(levels) == {"keep"}:
            return "a recipe in which at least one layer, or the head, is int4 or int8"
        if SPLIT in levels and facts.random_weights:
            return "a model whose likely tokens are known: these weights are random"
        if SPLIT in levels and facts.has_gpu:
            return "a head that is int4, int8 or kept: a split one has kernels on a CPU only"
        if SPLIT in levels and (reason := Int4WeightOnly(group_size=self.split_group).refuse(facts)):
            return reason
        return Int4WeightOnly(group_size=self.group_size).refuse(facts) if "int4" in levels else None


def units(layers: int) -> list[str]:
    """What has a level of its own: every decoder layer by its number, and the head."""
    return [*map(str, range(layers)), HEAD]


def set_of(levels: Mapping[str, str]) -> list[Level]:
    """The levels that occur, the fewest bits first."""
    return [level for level in LEVELS if level in levels.values()]


def read_levels(text: str) -> dict[str, Level]:
    """The map from unit to level that a text stands for: '0-1:int4 head:int8' -> {'0': 'int4', '1': ...}.

    Raises:
        RecipeError: for an entry that cannot be read, an unknown level, or a unit that is named twice.
    """
    levels: dict[str, Level] = {}
    for entry in text.replace(",", " ").split():
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise RecipeError(FIELD, entry, ALLOWED, "Correct this entry.")
        first, last, level = found.groups()
        if level not in LEVELS:
            raise RecipeError(FIELD, entry, f"one of the levels {', '.join(LEVELS)}", "Correct the level.")
        for unit in _named(entry, first, last):
            if level == SPLIT and unit != HEAD:
                allowed = f"split for the {HEAD} alone: a layer's outputs are no tokens"
                raise RecipeError(FIELD, entry, allowed, "Give the layer int4, int8 or keep.")
            if unit in levels:
                raise RecipeError(FIELD, entry, f"one level for each unit; {unit} has one already", "Remove one.")
            levels[unit] = level
    return levels


def _named(entry: str, first: str | None, last: str | None) -> list[str]:
    if first is None:
        return [HEAD]
    low, high = int(first), int(last or first)
    if low > high or high >= MOST_LAYERS:
        allowed = f"a range from low to high, below {MOST_LAYERS}"
        raise RecipeError(FIELD, entry, allowed, "Correct the numbers of the layers.")
    return list(map(str, range(low, high + 1)))


def write_levels(levels: Mapping[str, str]) -> str:
    """The text of a map from unit to a word, layers in order with runs as ranges and the head last.

    >>> write_levels({"head": "int8", "1": "int4", "0": "int4", "3": "keep"})
    '0-1:int4 3:keep head:int8'
    """
    layers = sorted((int(unit), word) for unit, word in levels.items() if unit != HEAD)
    runs = groupby(enumerate(layers), key=lambda item: (item[1][0] - item[0], item[1][1]))
    entries = []
    for (_, word), run in runs:
        numbers = [number for _, (number, _) in run]
        entries.append(f"{numbers[0]}{f'-{numbers[-1]}' if len(numbers) > 1 else ''}:{word}")
    return " ".join([*entries, *(f"{HEAD}:{word}" for unit, word in levels.items() if unit == HEAD)])


def _words(named: Iterable[str]) -> str:
    """'3 layers and head'."""
    names = list(named)
    layers = sum(unit != HEAD for unit in names)
    parts = [f"{layers} layer{'s' if layers > 1 else ''}"] if layers else []
    return " and ".join([*parts, *([HEAD] if HEAD in names else [])])
