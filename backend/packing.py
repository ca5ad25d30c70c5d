"""Packing: bytes of a lane's weights by part, and of each unit at each level of mixed precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from backend.hardware import cpu_flags
from backend.parts import WeightParts
from backend.recipe.recipe import Recipe
from backend.recipe.stores import Ground, Matrix, Stored, Zeros, floats, int8_rows
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
    """Bytes by part under a recipe; a tied head that is packed is a copy of the embedding.

    Unless the embedding is packed alike: then both are one.

    Args:
        width: bytes of a float of the lane.
    """
    ground = _ground(recipe, width, parts.layers)
    body, head = _stores(recipe, ground)
    kept = next(filter(None, (switch.table(ground) for switch in recipe.switches.values())), None)
    tied = parts.tied and parts.head > 0
    if kept and tied and not head:
        head = int8_rows  # the floats that it read are gone
    shared = tied and kept is not None and kept is head
    table = Matrix(parts.head_rows, parts.embedding // parts.head_rows)
    stored = sum(matrix.count * body(matrix) for matrix in parts.matrices)
    stored += width * (parts.linear - sum(matrix.count * matrix.numel for matrix in parts.matrices))  # shape unknown
    idle = sum(matrix.count * body(matrix) for matrix in parts.idle)
    own_head = 0.0 if parts.tied else float(width * parts.head)
    if head is not None and parts.head:
        own_head = head(table)
    embedding = 0.0 if shared else kept(table) if kept else float(width * parts.embedding)
    return HeldBytes(stored, idle, own_head, embedding, float(width * parts.rest))


def _ground(recipe: Recipe, width: int, layers: int) -> Ground:
    zeros = max((switch.zeros for switch in recipe.switches.values()), default=Zeros())
    return Ground(width, layers, "avx512_bf16" in cpu_flags(), zeros)


def _stores(recipe: Recipe, ground: Ground) -> Stored:
    """How the layers' matrices and the head are held: what a switch says, or the floats that were loaded."""
    said = (switch.stores(ground) for switch in recipe.switches.values())
    return next(filter(None, said), Stored(floats(ground.width), None))


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
