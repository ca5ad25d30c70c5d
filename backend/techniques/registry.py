"""Which technique answers which switch. A new file under `techniques/` is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from backend.recipe.switch import Switch
from backend.techniques.base import Effect, Subject, Technique

T = TypeVar("T", bound=type)

_TECHNIQUES: dict[type[Switch], Technique] = {}


def technique(switch: type[Switch]) -> Callable[[T], T]:
    """Class decorator: this technique answers that switch."""

    def register(cls: T) -> T:
        if switch in _TECHNIQUES:
            raise TypeError(f"{switch.kind} has a technique already")
        _TECHNIQUES[switch] = cls()
        return cls

    return register


@cache
def all_techniques() -> dict[type[Switch], Technique]:
    """Every technique by the switch class that asks for it."""
    from backend import techniques

    for module in pkgutil.walk_packages(techniques.__path__, f"{techniques.__name__}."):
        importlib.import_module(module.name)
    return dict(_TECHNIQUES)


def apply_switch(subject: Subject, switch: Switch) -> None:
    """Change the subject as the switch asks."""
    all_techniques()[type(switch)].apply(subject, switch)


def read_back(subject: Subject, switch: Switch) -> Effect:
    """Say what the switch really did."""
    return all_techniques()[type(switch)].read_back(subject, switch)
