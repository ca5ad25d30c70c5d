"""Packing: bytes of a matrix under each way to store it, as the layers of techniques/quantize hold them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backend.hardware import cpu_flags
from backend.parts import Matrix, WeightParts
from backend.recipe.recipe import Recipe

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
    body, head = _stores(recipe, width)
    table = Matrix(parts.head_rows, parts.head // parts.head_rows)
    stored = sum(matrix.count * body(matrix) for matrix in parts.matrices)
    stored += width * (parts.linear - sum(matrix.count * matrix.numel for matrix in parts.matrices))  # experts
    own_head = 0.0 if parts.tied else float(width * parts.head)
    return HeldBytes(
        stored,
        own_head if head is None or not parts.head else head(table),
        float(width * parts.embedding),
        float(width * parts.rest),
    )


def _stores(recipe: Recipe, width: int) -> tuple[Store, Store | None]:
    """How the layers' matrices are stored, and how the head is: None where it stays as it was loaded."""
    if dynamic := recipe.get("int8_dynamic"):
        rows: Store = _int8_per_channel if getattr(dynamic, "per_channel", False) else _int8_dynamic
        return rows, rows
    if weight_only := recipe.get("int8_weight_only"):
        return _int8_rows, None if getattr(weight_only, "head", "int8") == "keep" else _int8_rows
    if weight_only := recipe.get("int4_weight_only"):
        store = _int4(int(getattr(weight_only, "group_size", 32)), width)
        heads: dict[str, Store | None] = {"keep": None, "int8": _int8_rows, "int4": store}
        return store, heads[getattr(weight_only, "head", "int8")]
    if recipe.get("bnb_int8"):
        return lambda matrix: matrix.numel + 4.0 * matrix.rows, None
    if four_bit := recipe.get("bnb_4bit"):
        return _four_bit(bool(getattr(four_bit, "double_quant", False)), width), None
    return lambda matrix: float(width * matrix.numel), None


def _int8_rows(matrix: Matrix) -> float:
    """One byte a weight, inputs padded to a multiple of 32; a float32 scale and a bf16 one a row."""
    return matrix.rows * (_up(matrix.columns, 32) + 6.0)


def _int8_dynamic(matrix: Matrix) -> float:
    """One byte a weight, an int32 sum a row, one scale and zero point."""
    return matrix.numel + 4.0 * matrix.rows + 8.0


def _int8_per_channel(matrix: Matrix) -> float:
    """The same with a scale and zero point a row."""
    return matrix.numel + 12.0 * matrix.rows


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
