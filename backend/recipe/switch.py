"""The switch: one thing that may be asked of a model, and the table in which all switches are found."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, Self

from backend.recipe.base import Config
from backend.recipe.facts import ModelFacts
from backend.recipe.kinds import import_all, note_kind, read_kind
from backend.recipe.stores import Ground, Store, Stored, Zeros


class Group(StrEnum):
    """The pipeline's stations, in the order in which a page shows them."""

    TRAINING = "training"
    PRECISION = "precision"
    EMBEDDING = "embedding"
    PRUNING = "pruning"
    EXPERTS = "experts"
    ATTENTION = "attention"
    CACHE = "cache"
    DRAFT = "draft"
    RUNTIME = "runtime"


ONE_OF = frozenset({Group.PRECISION, Group.CACHE, Group.DRAFT})  # at most one switch of these groups in a recipe

_DECODERS_ONLY = {  # why an encoder cannot have any switch of these groups
    Group.CACHE: "a decoder: an encoder reads all tokens at once and keeps no cache",
    Group.DRAFT: "a decoder: an encoder writes no tokens, so there is nothing to guess",
}

_ONE_REQUEST = {  # why a batch of many requests cannot have any switch of these groups
    Group.CACHE: "many requests are served from slots that hold keys and values as they are",
    Group.DRAFT: "each request would have its own number of guesses to verify in one step",
}

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
    hint: ClassVar[str] = ""  # below its fields: where a good setting is found
    simulated: ClassVar[bool] = False  # changes quality but cannot change speed or memory here
    kernel_bytes: ClassVar[int] = 0  # kept by its kernels beside the weights: measured on x86 with AVX512 (docs/log.md)
    decoders_only: ClassVar[str] = ""  # why no encoder can have it; empty where encoders can

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        note_kind(_SWITCHES, cls, cls.kind, "switches")

    @property
    def label(self) -> str:
        """A few words for the title of a lane."""
        return self.title.lower()

    @property
    def simulates(self) -> bool:
        """Whether it, as it is set, changes quality only."""
        return self.simulated

    @property
    def zeros(self) -> Zeros:
        """What of the layers' matrices it sets to zero."""
        return Zeros()

    def makes_real(self, other: Switch) -> bool:
        """Whether, beside it, another switch that otherwise changes quality only can change speed and memory."""
        return False

    def eased(self, share: float) -> Self | None:
        """The same with about this share of what it takes away; None where it takes away all or nothing."""
        return None

    @property
    def shape_dependent(self) -> bool:
        """Whether its output depends on how many tokens one call holds."""
        return False

    @property
    def multiplies(self) -> str:
        """The number type in which long calls multiply, by its name in torch; '' where it stays the weights' own.

        Of several the fastest: a ceiling may be too high but never too low.
        """
        return ""

    def stores(self, ground: Ground) -> Stored | None:
        """How it makes matrices be held, for the forecast, or None where they stay as they were loaded."""
        return None

    def cached(self, facts: ModelFacts, tokens: int, width: int) -> int | None:
        """Bytes that one layer caches for a text of so many tokens, `width` a number; None where it keeps them all."""
        return None

    def cached_per_token(self, facts: ModelFacts, width: int) -> float | None:
        """Bytes of one layer's cache a token where its memory grows steadily; None where numbers stay as computed."""
        return None

    def table(self, ground: Ground) -> Store | None:
        """How it makes the embedding be held, for the forecast, or None where it stays as it was loaded."""
        return None

    def resize(self, facts: ModelFacts) -> dict[str, Any]:
        """The sizes of the model that it changes, by their names in the facts."""
        return {}

    def refuse(self, facts: ModelFacts) -> str | None:
        """The reason why this model on this machine cannot have the switch, or None; ask `unfit` from outside."""
        return None

    @property
    def changes_weights(self) -> bool:
        """Whether what it does stays in the weights: it is saved with them, and cannot be done to packed ones."""
        return self.group in (Group.TRAINING, Group.PRECISION, Group.EMBEDDING, Group.PRUNING, Group.EXPERTS)

    @classmethod
    def foreign(cls, facts: ModelFacts) -> str | None:
        """The reason why no setting of the switch means anything to a model of this task, or None."""
        return (cls.decoders_only or _DECODERS_ONLY.get(cls.group)) if facts.task == "encoder" else None

    def unfit(self, facts: ModelFacts) -> str | None:
        """The reason why the switch cannot be had, or None: the model's task, weights saved converted, its own."""
        if facts.held_as and self.changes_weights:
            return "nothing: this model was saved with its weights converted; start from the original"
        return self.foreign(facts) or self.refuse(facts)

    def alone(self) -> str | None:
        """The reason why it serves one request at a time and no batch of them, or None."""
        return _ONE_REQUEST.get(self.group)

    @classmethod
    def for_batch(cls) -> dict[str, Any] | None:
        """Fields with which a batch of requests can have it, {} where the defaults will do; None where it cannot."""
        return {} if cls.model_construct().alone() is None else None

    def clash(self, other: Switch) -> str | None:
        """The reason why it cannot stand beside another switch of the same recipe, or None."""
        return None


@cache
def all_switches() -> dict[str, type[Switch]]:
    """Every switch by its kind, in pipeline order. A new file in `switches/` is found by itself."""
    from backend.recipe import switches

    import_all(switches)
    groups = list(Group)
    return dict(sorted(_SWITCHES.items(), key=lambda item: (groups.index(item[1].group), item[1].order, item[0])))


def read_switch(kind: str, fields: Any, where: str = "switches") -> Switch:
    """Validate one switch.

    Raises:
        RecipeError: for a kind that nobody registered, or a field that does not fit.
    """
    return read_kind(all_switches(), kind, fields, where, "Correct the name of the switch.")
