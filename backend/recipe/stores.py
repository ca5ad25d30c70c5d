"""Stores: bytes of a matrix under each way to hold it, as the layers of techniques/quantize do.

A switch that changes how matrices are held says so with these (Switch.stores), and so is forecast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Matrix:
    """One sort of matrix, (rows, columns) as a linear layer holds it, and how many there are."""

    rows: int
    columns: int
    count: int = 1
    expert: bool = False  # one of several that a token may pass by

    @property
    def numel(self) -> int:
        """Numbers in one."""
        return self.rows * self.columns


class Zeros(NamedTuple):
    """What of the layers' matrices is zero."""

    share: float = 0.0
    in_blocks: bool = False  # of 64 rows that keep the same columns


@dataclass(frozen=True)
class Ground:
    """What the bytes of a lane hang on beside its recipe."""

    width: int  # bytes of a float
    layers: int
    multiplies_bf16: bool  # whether this processor has instructions for it, for which bitsandbytes packs again
    zeros: Zeros = Zeros()  # noqa: RUF009


Store = Callable[[Matrix], float]  # bytes of one matrix


class Stored(NamedTuple):
    """How the layers' matrices are held, and how the head is: None where it stays as it was loaded."""

    body: Store
    head: Store | None


def floats(width: int) -> Store:
    """As they were loaded."""
    return lambda matrix: float(width * matrix.numel)


def int8_rows(matrix: Matrix) -> float:
    """One byte a weight, inputs padded to a multiple of 32; a float32 scale and a bf16 one a row."""
    return matrix.rows * (_up(matrix.columns, 32) + 6.0)


def int8_whole(matrix: Matrix) -> float:
    """One byte a weight, an int32 sum a row, one scale and zero point for all."""
    return matrix.numel + 4.0 * matrix.rows + 8.0


def int8_channels(matrix: Matrix) -> float:
    """The same with a scale and zero point a row."""
    return matrix.numel + 12.0 * matrix.rows


def int8_tokens(matrix: Matrix) -> float:
    """The same with another sum a row, for tokens with a range of their own."""
    return matrix.numel + 16.0 * matrix.rows


def int8_outliers(matrix: Matrix) -> float:
    """One byte a weight and a float32 scale a row."""
    return matrix.numel + 4.0 * matrix.rows


def int4_groups(group: int, width: int) -> Store:
    """Two codes a byte, a bf16 scale and zero a group; rows padded to 16, inputs to the group."""

    def store(matrix: Matrix) -> float:
        if matrix.columns < group:
            return float(width * matrix.numel)
        return _up(matrix.rows, 16) * (0.5 + 4 / group) * _up(matrix.columns, group)

    return store


def split_rows(share: float, group: int, width: int) -> Store:
    """All rows in int4, a share of them once more in int8, with their numbers."""
    rest = int4_groups(group, width)

    def store(matrix: Matrix) -> float:
        likely = rows_of(share, matrix.rows)
        return rest(matrix) + int8_rows(Matrix(likely, matrix.columns)) + 8.0 * likely

    return store


def rows_of(share: float, rows: int) -> int:
    """How many rows a share of them is, one at least."""
    return max(1, round(share * rows))


def codebook(double: bool, ground: Ground) -> Store:
    """Two codes a byte and a scale for 64 weights: float32, or bf16 where the CPU's own kernel packs them again."""
    repacked = ground.multiplies_bf16
    scale = 2.0 if repacked else 1.0 + 4 / 256 if double else 4.0

    def store(matrix: Matrix) -> float:
        if repacked and (matrix.rows % 32 or matrix.columns % 64):
            return float(ground.width * matrix.numel)
        return (0.5 + scale / 64) * matrix.numel + 64

    return store


SPARSE_FROM = {False: 0.7, True: 0.45}  # share of zeros from which a gain is likely on one core; by Zeros.in_blocks


def sparse_rows(ground: Ground) -> Store | None:
    """What is not zero: with an int32 for each, or an int64 for 64 of them in blocks; None where no gain is likely."""
    share, in_blocks = ground.zeros
    if share < SPARSE_FROM[in_blocks]:
        return None

    def store(matrix: Matrix) -> float:
        left = (1 - share) * matrix.numel
        if in_blocks:
            return left / matrix.rows * (_up(matrix.rows, 64) * ground.width + 8 * _up(matrix.rows, 64) / 64)
        return left * (ground.width + 4) + 4.0 * (matrix.rows + 1)

    return store


def _up(size: int, step: int) -> int:
    """The next multiple."""
    return -(-size // step) * step
