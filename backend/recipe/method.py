"""The training method: one thing that is done to a model while it trains, and the table of all of them."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from backend.recipe.base import Config, RecipeError
from backend.recipe.facts import ModelFacts

if TYPE_CHECKING:
    from backend.recipe.training import Training

_METHODS: dict[str, type[Method]] = {}


class Method(Config):
    """One choice of how to train. A subclass sets the class variables, adds its fields, and is found by its `kind`."""

    kind: ClassVar[str] = ""
    title: ClassVar[str]  # on the form
    summary: ClassVar[str]  # one sentence: what it does and what it costs
    source: ClassVar[str] = ""  # the paper or the library
    bytes_a_weight: ClassVar[int] = 0  # kept beside every trained weight while it trains, the optimizer's left out

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.kind:
            known = _METHODS.setdefault(cls.kind, cls)
            if known.__qualname__ != cls.__qualname__:
                raise TypeError(f"two methods are called {cls.kind!r}: {known} and {cls}")

    @property
    def label(self) -> str:
        """A few words for the name of a run."""
        return self.title.lower()

    def trained_share(self, facts: ModelFacts) -> float | None:
        """Predicted share of the parameters that have gradients and an optimizer; None is all of them.

        Args:
            facts: of the student as it trains, after what is done to it first; its parameters are the whole.
        """
        return None

    def refuse(self, facts: ModelFacts) -> str | None:
        """The reason why a model cannot be trained so, or None."""
        return None

    def unfit(self, asked: Training) -> str | None:
        """What would have to be otherwise in the rest of the training for it to be part of it, or None."""
        return None

    def clash(self, other: Method) -> str | None:
        """The reason why it cannot stand beside another method of the same training, or None."""
        return None


@cache
def all_methods() -> dict[str, type[Method]]:
    """Every method by its kind. A new file in `methods/` is found by itself."""
    from backend.recipe import methods

    for module in pkgutil.iter_modules(methods.__path__):
        importlib.import_module(f"{methods.__name__}.{module.name}")
    return dict(sorted(_METHODS.items()))


def read_method(kind: str, fields: Any) -> Method:
    """Validate one method.

    Raises:
        RecipeError: for a kind that nobody registered, or a field that does not fit.
    """
    known = all_methods()
    if kind not in known:
        raise RecipeError(f"methods.{kind}", kind, f"one of {', '.join(known)}", "Correct the method's name.")
    return known[kind].read(fields, where=f"methods.{kind}")
