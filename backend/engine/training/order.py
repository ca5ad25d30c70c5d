"""The order in which a text is read: another one each time through, the same for the same seed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def place_of(number: int, count: int, seed: int) -> int:
    """The place of the piece that is read as the `number`th of all, of a text of so many pieces."""
    epoch, inside = divmod(number, count)
    return int(_order(seed, epoch, count)[inside]) if epoch or seed else inside


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
