"""Classes found by their kind, as switches and methods are: a table of them, filled by the files of a folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from backend.recipe.base import Config, RecipeError

C = TypeVar("C", bound=Config)


def import_all(package: ModuleType) -> None:
    """Import every module of a package, so that what registers itself does; a new file is found by itself."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def note_kind(table: dict[str, type[C]], cls: type[C], kind: str, noun: str) -> None:
    """Put a class into the table under its kind, where it has one.

    Raises:
        TypeError: when another class has that kind already.
    """
    if not kind:
        return
    known = table.setdefault(kind, cls)
    if known.__qualname__ != cls.__qualname__:
        raise TypeError(f"two {noun} are called {kind!r}: {known} and {cls}")


def read_kind(known: Mapping[str, type[C]], kind: str, fields: Any, where: str, remedy: str) -> C:
    """Validate what is asked of one kind.

    Raises:
        RecipeError: for a kind that is not in the table, or a field that does not fit.
    """
    if kind not in known:
        raise RecipeError(f"{where}.{kind}", kind, f"one of {', '.join(known)}", remedy)
    return known[kind].read(fields, where=f"{where}.{kind}")


def read_each(value: Any, cls: type[C], read: Callable[[str, Any], C], where: str, example: str) -> dict[str, C]:
    """Validate an object by kind; what is validated already stays.

    Raises:
        RecipeError: for what is no object, and whatever `read` refuses.
    """
    if not isinstance(value, dict):
        raise RecipeError(where, value, f"an object of {where} by kind", f"Write {example}.")
    return {kind: one if isinstance(one, cls) else read(kind, one) for kind, one in value.items()}
