"""Packing: bytes of a matrix under each way to store it, as the layers of techniques/quantize hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from backend.hardware import cpu_flags
from backend.parts import Matrix, WeightParts
from backend.recipe.grouped import Grouped
from backend.recipe.recipe import Recipe
from backend.recipe.switches.mixed import HEAD, LEVELS, SPLIT, MixedPrecision, Rest

Store = Callable[[Matrix], float]  # bytes of one matrix


@dataclass(frozen=True)
class HeldBytes:
    """Predicted bytes of a lane's weights by part."""

    body: float  # matrices of the layers
    head: float  # 0 where the head reads the embedding's own table
    embedding: float
    rest: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.body + self.head + self.embedding + self.rest


def held_bytes(parts: WeightParts, recipe: Recipe, width: int) -> HeldBytes:
    """Bytes by part under a recipe; a tied head that is packed is a second copy of the embedding.

    Args:
        width: bytes of a float of the lane.
    """
    body, head = _stores(recipe, width, parts.layers)
    table = Matrix(parts.head_rows, parts.head // parts.head_rows)
    stored = sum(matrix.count * body(matrix) for matrix in parts.matrices)
    stored += width * (parts.linear - sum(matrix.count * matrix.numel for matrix in parts.matrices))  # experts
    floats = 0.0 if parts.tied else float(width * parts.head)
    own_head = head(table) if head is not None and parts.head else floats
    return HeldBytes(stored, own_head, float(width * parts.embedding), float(width * parts.rest))


def _stores(recipe: Recipe, width: int, layers: int) -> tuple[Store, Store | None]:
    """How the layers' matrices are stored, and how the head is: None where it stays as it was loaded."""
    dynamic = recipe.get("int8_dynamic")
    if recipe.get("int8_static") or getattr(recipe.get("smoothquant"), "scale", "") == "static":
        return _int8_per_channel, _int8_per_channel
    if recipe.get("smoothquant") or getattr(dynamic, "scale", "") == "token":
        return _w8a8, _w8a8
    if dynamic:
        rows: Store = _int8_per_channel if getattr(dynamic, "per_channel", False) else _int8_dynamic
        return rows, rows
    if weight_only := recipe.get("int8_weight_only"):
        return _int8_rows, None if getattr(weight_only, "head", "int8") == "keep" else _int8_rows
    if grouped := find_grouped(recipe):
        store = _int4(grouped.group_size, width)
        heads: dict[str, Store | None] = {"keep": None, "int8": _int8_rows, "int4": store}
        return store, heads[grouped.head]
    if isinstance(mixed := recipe.get(MixedPrecision.kind), MixedPrecision):
        return _by_layer(mixed, width, layers)
    if recipe.get("bnb_int8"):
        return lambda matrix: matrix.numel + 4.0 * matrix.rows, None
    if four_bit := recipe.get("bnb_4bit"):
        return _four_bit(bool(getattr(four_bit, "double_quant", False)), width), None
    return lambda matrix: float(width * matrix.numel), None


def _by_layer(mixed: MixedPrecision, width: int, layers: int) -> tuple[Store, Store | None]:
    """The mean over the layers, which are of one shape, and the head."""
    levels = mixed.by_unit(layers)
    stores, head = level_stores(mixed, width), levels.pop(HEAD)
    counts = Counter(levels.values())

    def body(matrix: Matrix) -> float:
        return sum(count * stores[level](matrix) for level, count in counts.items()) / max(1, layers)

    return body, None if head == "keep" else stores[head]


def level_stores(mixed: MixedPrecision, width: int) -> dict[str, Store]:
    """How a matrix is stored at each level of mixed precision."""
    return {
        "int4": _int4(mixed.group_size, width),
        SPLIT: _split(mixed, width),
        "int8": _int8_rows,
        "keep": lambda matrix: float(width * matrix.numel),
    }


def _split(mixed: MixedPrecision, width: int) -> Store:
    """All rows in int4, the likely ones once more in int8, with their numbers."""
    rest = _int4(mixed.split_group, width)

    def store(matrix: Matrix) -> float:
        likely = max(1, round(mixed.likely * matrix.rows))
        return rest(matrix) + _int8_rows(Matrix(likely, matrix.columns)) + 8.0 * likely

    return store


@dataclass(frozen=True)
class UnitBytes:
    """Predicted bytes of the matrices of one decoder layer, or of the head, at each level."""

    weights: int
    levels: dict[str, float]


def unit_bytes(parts: WeightParts, mixed: MixedPrecision, width: int) -> dict[str, UnitBytes]:
    """A layer's and the head's bytes at each level that they may have, scales and padding included.

    A head that is kept counts with its floats, also where they are the embedding's own: they are read for every token.
    Experts are no linear layers, so that no level changes them: they are left out.
    """
    layers = max(1, parts.layers)
    a_layer = [Matrix(one.rows, one.columns, one.count // layers) for one in parts.matrices]
    head = [Matrix(parts.head_rows, parts.head // parts.head_rows)]
    stores = level_stores(mixed, width)

    def sized(matrices: list[Matrix], *levels: str) -> UnitBytes:
        sizes = {level: sum(one.count * stores[level](one) for one in matrices) for level in levels}
        return UnitBytes(sum(one.count * one.numel for one in matrices), sizes)

    layer = sized(a_layer, *get_args(Rest))
    return {**{str(number): layer for number in range(parts.layers)}, HEAD: sized(head, *LEVELS)}


def find_grouped(recipe: Recipe) -> Grouped | None:
    """The switch of the recipe that packs int4 layers, whatever method chooses their codes."""
    return next((switch for switch in recipe.switches.values() if isinstance(switch, Grouped)), None)


def _int8_rows(matrix: Matrix) -> float:
    """One byte a weight, inputs padded to a multiple of 32; a float32 scale and a bf16 one a row."""
    return matrix.rows * (_up(matrix.columns, 32) + 6.0)


def _int8_dynamic(matrix: Matrix) -> float:
    """One byte a weight, an int32 sum a row, one scale and zero point."""
    return matrix.numel + 4.0 * matrix.rows + 8.0


def _int8_per_channel(matrix: Matrix) -> float:
    """The same with a scale and zero point a row."""
    return matrix.numel + 12.0 * matrix.rows


def _w8a8(matrix: Matrix) -> float:
    """What fbgemm holds, and another sum a row for tokens with a range of their own."""
    return matrix.numel + 16.0 * matrix.rows


def _int4(group: int, width: int) -> Store:
    """Two codes a byte, a bf16 scale and zero a group; rows padded to 16, inputs to the group."""

    def store(matrix: Matrix) -> float:
        if matrix.columns < group:
            return float(width * matrix.numel)
        return _up(matrix.rows, 16) * (0.5 + 4 / group) * _up(matrix.columns, group)

    return store


def _four_bit(double: bool, width: int) -> Store:
    """Two codes a byte and a scale for 64 weights: float32, or bf16 where the CPU's own kernel packs them again."""
    repacked = "avx512_bf16" in cpu_flags()
    scale = 2.0 if repacked else 1.0 + 4 / 256 if double else 4.0

    def store(matrix: Matrix) -> float:
        if repacked and (matrix.rows % 32 or matrix.columns % 64):
            return float(width * matrix.numel)
        return (0.5 + scale / 64) * matrix.numel + 64

    return store


def _up(size: int, step: int) -> int:
    """The next multiple."""
    return -(-size // step) * step
