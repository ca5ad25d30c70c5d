"""Vectors on their way through a pipe: a matrix as plain data and back. Light, since every lane imports it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np


def packed(vectors: np.ndarray) -> dict[str, Any]:
    """A matrix as plain data that fits through a pipe."""
    held = np.ascontiguousarray(vectors, dtype=np.float32)
    return {"shape": list(held.shape), "float32": base64.b64encode(held.tobytes()).decode()}


def unpacked(data: dict[str, Any]) -> np.ndarray:
    """The matrix that `packed` wrote, as float64."""
    raw = np.frombuffer(base64.b64decode(data["float32"]), dtype=np.float32)
    return raw.reshape(data["shape"]).astype(np.float64)
