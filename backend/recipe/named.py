"""Heads and layers by their numbers, as a recipe names them: '0:1,3 2:0' and '3 5-7'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from backend.recipe.base import RecipeError

MOST = 1024  # layers, and heads of a layer
HEADS_ALLOWED = "entries LAYER:HEADS, for example 0:1,3 2:0-2"
LAYERS_ALLOWED = "numbers and ranges of layers, for example 3 5-7"
_RUN = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")

Heads = dict[int, tuple[int, ...]]  # layer -> its heads, both in order


def read_heads(text: str, field: str) -> Heads:
    """The heads that a text names: '0:1,3 2:0' -> {0: (1, 3), 2: (0,)}.

    Raises:
        RecipeError: naming `field`, for an entry that cannot be read.
    """
    found: dict[int, set[int]] = {}
    for entry in text.split():
        layer, colon, heads = entry.partition(":")
        if not colon or not layer.isascii() or not layer.isdigit() or int(layer) >= MOST:
            raise RecipeError(field, entry, HEADS_ALLOWED, "Correct this entry.")
        for run in heads.split(","):
            found.setdefault(int(layer), set()).update(_numbers(run, entry, field, HEADS_ALLOWED))
    return {layer: tuple(sorted(heads)) for layer, heads in sorted(found.items())}


def write_heads(named: Mapping[int, Iterable[int]]) -> str:
    """The text that names these heads, layers in order and runs as ranges.

    >>> write_heads({2: [0], 0: [3, 1]})
    '0:1,3 2:0'
    """
    heads = {layer: sorted(set(own)) for layer, own in sorted(named.items())}
    return " ".join(f"{layer}:{','.join(_runs(own))}" for layer, own in heads.items() if own)


def read_layers(text: str, field: str) -> tuple[int, ...]:
    """The layers that a text names: '3 5-7' -> (3, 5, 6, 7).

    Raises:
        RecipeError: naming `field`, for an entry that cannot be read.
    """
    found: set[int] = set()
    for entry in text.replace(",", " ").split():
        found.update(_numbers(entry, entry, field, LAYERS_ALLOWED))
    return tuple(sorted(found))


def write_layers(named: Iterable[int]) -> str:
    """The text that names these layers.

    >>> write_layers([7, 3, 6, 5])
    '3 5-7'
    """
    return " ".join(_runs(sorted(set(named))))


def refuse_both(remove: Heads, keep: Heads, field: str) -> None:
    """Nothing can be removed and kept.

    Raises:
        RecipeError: naming the first head in both.
    """
    for layer, heads in remove.items():
        if both := sorted(set(heads) & set(keep.get(layer, ()))):
            allowed = "a head that is removed, or one that is kept"
            raise RecipeError(field, f"{layer}:{both[0]} in remove and in keep", allowed, "Take it out of one of them.")


def unknown_head(named: Heads, layers: int, heads: int) -> str | None:
    """Why such a model has not all of these heads, or None."""
    for layer, own in named.items():
        if layer >= layers:
            return f"layers 0 to {layers - 1}: there is no layer {layer}"
        if own[-1] >= heads:
            return f"heads 0 to {heads - 1} that can go one by one: there is no head {layer}:{own[-1]}"
    return None


def _numbers(run: str, entry: str, field: str, allowed: str) -> range:
    found = _RUN.fullmatch(run)
    if found is None:
        raise RecipeError(field, entry, allowed, "Correct this entry.")
    low, high = int(found[1]), int(found[2] or found[1])
    if low > high or high >= MOST:
        raise RecipeError(field, entry, f"a range from low to high, below {MOST}", "Correct the numbers.")
    return range(low, high + 1)


def _runs(numbers: list[int]) -> list[str]:
    """Numbers in order, neighbours as ranges: [1, 2, 3, 5] -> ['1-3', '5']."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
