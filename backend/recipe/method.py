"""The training method: one thing that is done to a model while it trains, and the table of all of them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from backend.recipe.base import Config
from backend.recipe.facts import ModelFacts
from backend.recipe.kinds import import_all, note_kind, read_kind

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
        note_kind(_METHODS, cls, cls.kind, "methods")

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

    import_all(methods)
    return dict(sorted(_METHODS.items()))


def read_method(kind: str, fields: Any) -> Method:
    """Validate one method.

    Raises:
        RecipeError: for a kind that nobody registered, or a field that does not fit.
    """
    return read_kind(all_methods(), kind, fields, "methods", "Correct the method's name.")
