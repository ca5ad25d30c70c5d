"""Packing: bytes of a lane's weights by part, and of each unit at each level of mixed precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from backend.hardware import cpu_flags
from backend.parts import WeightParts
from backend.recipe.recipe import Recipe
from backend.recipe.stores import Ground, Matrix, Stored, Zeros, floats
from backend.recipe.switches.mixed import HEAD, LEVELS, MixedPrecision, Rest


@dataclass(frozen=True)
class HeldBytes:
    """Predicted bytes of a lane's weights by part."""

    body: float  # matrices of the layers
    idle: float  # those of them in experts that a token does not pass through
    head: float  # 0 where the head reads the embedding's own table
    embedding: float
    rest: float

    @property
    def total(self) -> float:
        """All of them; idle ones are in the body already."""
        return self.body + self.head + self.embedding + self.rest


def held_bytes(parts: WeightParts, recipe: Recipe, width: int) -> HeldBytes:
    """Bytes by part under a recipe; a tied head that is packed is a second copy of the embedding.

    Args:
        width: bytes of a float of the lane.
    """
    body, head = _stores(recipe, width, parts.layers)
    table = Matrix(parts.head_rows, parts.head // parts.head_rows)
    stored = sum(matrix.count * body(matrix) for matrix in parts.matrices)
    stored += width * (parts.linear - sum(matrix.count * matrix.numel for matrix in parts.matrices))  # shape unknown
    idle = sum(matrix.count * body(matrix) for matrix in parts.idle)
    floats = 0.0 if parts.tied else float(width * parts.head)
    own_head = head(table) if head is not None and parts.head else floats
    return HeldBytes(stored, idle, own_head, float(width * parts.embedding), float(width * parts.rest))


def _stores(recipe: Recipe, width: int, layers: int) -> Stored:
    """How the layers' matrices and the head are held: what a switch says, or the floats that were loaded."""
    zeros = max((switch.zeros for switch in recipe.switches.values()), default=Zeros())
    ground = Ground(width, layers, "avx512_bf16" in cpu_flags(), zeros)
    said = (switch.stores(ground) for switch in recipe.switches.values())
    return next(filter(None, said), Stored(floats(width), None))


@dataclass(frozen=True)
class UnitBytes:
    """Predicted bytes of the matrices of one decoder layer, or of the head, at each level."""

    weights: int
    levels: dict[str, float]


def unit_bytes(parts: WeightParts, mixed: MixedPrecision, width: int) -> dict[str, UnitBytes]:
    """A layer's and the head's bytes at each level that they may have, scales and padding included.

    A head that is kept counts with its floats, also where they are the embedding's own: they are read for every token.
    """
    layers = max(1, parts.layers)
    a_layer = [Matrix(one.rows, one.columns, one.count // layers) for one in parts.matrices]
    head = [Matrix(parts.head_rows, parts.head // parts.head_rows)]
    stores = mixed.level_stores(width)

    def sized(matrices: list[Matrix], *levels: str) -> UnitBytes:
        sizes = {level: sum(one.count * stores[level](one) for one in matrices) for level in levels}
        return UnitBytes(sum(one.count * one.numel for one in matrices), sizes)

    layer = sized(a_layer, *get_args(Rest))
    return {**{str(number): layer for number in range(parts.layers)}, HEAD: sized(head, *LEVELS)}
