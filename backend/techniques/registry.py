"""Which technique answers which switch, and which coach which method. A new file of theirs is found by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import Generic, TypeVar

from backend.recipe.base import Config
from backend.recipe.kinds import import_all
from backend.recipe.switch import Switch
from backend.techniques.base import Effect, Subject, Technique

T = TypeVar("T", bound=type)
A = TypeVar("A")


class Registry(Generic[A]):
    """Who answers what is asked, by the class of the config that asks: one object each, made when its file is read."""

    def __init__(self, noun: str, package: str) -> None:
        self._noun, self._package = noun, package
        self._answers: dict[type[Config], A] = {}

    def answers(self, asked: type[Config]) -> Callable[[T], T]:
        """Class decorator: this one answers configs of that class."""

        def register(cls: T) -> T:
            if asked in self._answers:
                raise TypeError(f"{getattr(asked, 'kind', asked)} has a {self._noun} already")
            self._answers[asked] = cls()
            return cls

        return register

    @cached_property
    def all(self) -> dict[type[Config], A]:
        """Everyone by what they answer; the first look imports every file of the package."""
        import_all(import_module(self._package))
        return dict(self._answers)


_TECHNIQUES: Registry[Technique] = Registry("technique", "backend.techniques")
technique = _TECHNIQUES.answers


def all_techniques() -> dict[type[Config], Technique]:
    """Every technique by the switch class that asks for it."""
    return _TECHNIQUES.all


def apply_switch(subject: Subject, switch: Switch) -> None:
    """Change the subject as the switch asks."""
    all_techniques()[type(switch)].apply(subject, switch)


def read_back(subject: Subject, switch: Switch) -> Effect:
    """Say what the switch really did."""
    return all_techniques()[type(switch)].read_back(subject, switch)
