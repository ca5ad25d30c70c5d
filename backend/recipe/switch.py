"""The switch: one thing that may be asked of a model, and the table in which all switches are found."""

from __future__ import annotations

import importlib
import pkgutil
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar

from backend.recipe.base import Config, RecipeError
from backend.recipe.facts import ModelFacts


class Group(StrEnum):
    """The pipeline's stations, in the order in which a page shows them."""

    PRECISION = "precision"
    PRUNING = "pruning"
    ATTENTION = "attention"
    CACHE = "cache"
    DRAFT = "draft"
    RUNTIME = "runtime"


ONE_OF = frozenset({Group.PRECISION, Group.CACHE, Group.DRAFT})  # at most one switch of these groups in a recipe

_SWITCHES: dict[str, type[Switch]] = {}


class Switch(Config):
    """One choice. A subclass sets the class variables, adds its fields, and is found by its `kind`.

    `order` is when its technique is applied: pruning (100) before attention (200) before precision (300) before
    cache (400), draft (500) and runtime (600), since a packed weight can no longer be cut.
    """

    kind: ClassVar[str] = ""
    group: ClassVar[Group]
    order: ClassVar[int]
    title: ClassVar[str]  # on the form
    summary: ClassVar[str]  # one sentence: what it does and what it costs
    source: ClassVar[str] = ""  # the paper or the library
    simulated: ClassVar[bool] = False  # changes quality but cannot change speed or memory here
    shape_dependent: ClassVar[bool] = False  # its output depends on how many tokens one call holds

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.kind:
            known = _SWITCHES.setdefault(cls.kind, cls)
            if known.__qualname__ != cls.__qualname__:
                raise TypeError(f"two switches are called {cls.kind!r}: {known} and {cls}")

    @property
    def label(self) -> str:
        """A few words for the title of a lane."""
        return self.title.lower()

    def refuse(self, facts: ModelFacts) -> str | None:
        """The reason why this model on this machine cannot have the switch, or None."""
        return None

    @property
    def changes_weights(self) -> bool:
        """Whether what it does stays in the weights: it is saved with them, and cannot be done to packed ones."""
        return self.group in (Group.PRECISION, Group.PRUNING)

    def refusal(self, facts: ModelFacts) -> str | None:
        """The reason why this model cannot have it: the switch's own, or weights that were converted and saved."""
        if facts.held_as and self.changes_weights:
            return "nothing: this model was saved with its weights converted; start from the original"
        return self.refuse(facts)

    def clash(self, other: Switch) -> str | None:
        """The reason why it cannot stand beside another switch of the same recipe, or None."""
        return None


@cache
def all_switches() -> dict[str, type[Switch]]:
    """Every switch by its kind, in pipeline order. A new file in `switches/` is found by itself."""
    from backend.recipe import switches

    for module in pkgutil.iter_modules(switches.__path__):
        importlib.import_module(f"{switches.__name__}.{module.name}")
    groups = list(Group)
    return dict(sorted(_SWITCHES.items(), key=lambda item: (groups.index(item[1].group), item[1].order, item[0])))


def read_switch(kind: str, fields: Any, where: str = "switches") -> Switch:
    """Validate one switch.

    Raises:
        RecipeError: for a kind that nobody registered, or a field that does not fit.
    """
    known = all_switches()
    if kind not in known:
        raise RecipeError(f"{where}.{kind}", kind, f"one of {', '.join(known)}", "Correct the name of the switch.")
    return known[kind].read(fields, where=f"{where}.{kind}")
