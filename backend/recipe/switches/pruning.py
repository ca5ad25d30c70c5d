"""Pruning: parts of the model that are taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from backend.recipe.facts import ModelFacts
from backend.recipe.named import Heads, read_heads, refuse_both, unknown_head, write_heads
from backend.recipe.switch import Group, Switch

BLOCKS = (32, 16, 8, 4, 2, 1)  # packed kernels want whole blocks of 32
TOLERANCE = 0.01  # of the ratio that was asked for
BERT_LIKE = ("bert", "camembert", "electra", "roberta", "xlm-roberta")  # encoders whose parts can be cut
LONGEST = 2000  # characters of a list of heads or layers

Scope = Literal["layer", "global"]
NeuronRanking = Literal["output", "weights", "activation", "taylor", "random"]
HeadRanking = Literal["output", "weights", "activation", "taylor", "entropy", "ablation", "random"]
SCOPE_NOTE = "layer: every layer loses as many; global: one ranking over all layers, so that widths come to differ"
COUNT_NOTE = "of every layer in the place of the ratio, or of all layers together where the scope is global; 0 is none"
MOST_UNITS = 1 << 20
SEED_NOTE = "of a random choice"


EXPERTS_INSTEAD = "a dense feed-forward part: this model has experts; remove whole ones"


def unlike_bert(facts: ModelFacts) -> str | None:
    """The reason why an encoder's parts are not known well enough to be cut, or None."""
    if facts.task == "decoder" or facts.architecture in BERT_LIKE:
        return None
    return f"a decoder, or an encoder built like BERT ({', '.join(BERT_LIKE)}): {facts.architecture} is not"


class PruneHeads(Switch):
    """Attention heads removed, the least important first."""

    kind: ClassVar[str] = "prune_heads"
    group: ClassVar[Group] = Group.PRUNING
    order: ClassVar[int] = 120
    title: ClassVar[str] = "Attention heads"
    summary: ClassVar[str] = "Removes the heads that add least on a little text: really smaller and faster."
    source: ClassVar[str] = "Michel et al. 2019"
    hint: ClassVar[str] = "Inspect, tab Pruning, shows which heads matter, and lets you choose them by hand."

    ratio: float = Field(0.25, ge=0.0, lt=1.0, description="share of the heads")
    count: int = Field(0, ge=0, le=MOST_UNITS, description=f"heads {COUNT_NOTE}")
    by: HeadRanking = Field(
        "output",
        description="what ranks them: what a head adds to its layer's output, the norm of its weights, of its "
        "activation, the first-order change of the loss without it, how spread its attention is, what changes when "
        "it alone is silenced (slow), or chance",
    )
    scope: Scope = Field("layer", description=SCOPE_NOTE)
    remove: str = Field(
        "",
        max_length=LONGEST,
        description="LAYER:HEADS that go whatever their rank; they count towards the ratio. Layers have the numbers "
        "that they have after whole layers went",
        examples=["0:1,3 2:0-2"],
    )
    keep: str = Field("", max_length=LONGEST, description="LAYER:HEADS that stay", examples=["1:0"])
    at_a_time: int = Field(
        0,
        ge=0,
        le=MOST_UNITS,
        description="heads that go, of each layer or of all as the scope says, before the rest is ranked again on what "
        "is left; 0 is all at once, 1 is the most careful and the slowest",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description=SEED_NOTE)

    @field_validator("remove", "keep")
    @classmethod
    def _in_order(cls, value: str, info: ValidationInfo) -> str:
        return write_heads(read_heads(value, f"switches.prune_heads.{info.field_name}"))

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        refuse_both(self.removed, self.kept, "switches.prune_heads.keep")
        return self

    @property
    def removed(self) -> Heads:
        """The heads that go whatever their rank."""
        return read_heads(self.remove, "remove")

    @property
    def kept(self) -> Heads:
        """The heads that stay."""
        return read_heads(self.keep, "keep")

    def eased(self, share: float) -> Self | None:
        if self.remove:
            return None
        return self.model_copy(update={"ratio": share * self.ratio, "count": eased(self.count, share)})

    @property
    def label(self) -> str:
        named = sum(map(len, self.removed.values()))
        share = f"{self.ratio:.0%} fewer heads" if self.ratio or not named else f"{named} chosen heads fewer"
        if self.count:
            share = f"{self.count} heads fewer" + (" a layer" if self.scope == "layer" else "")
        return (
            share + ranked(self.by, "output", self.scope) + (f", {self.at_a_time} at a time" if self.at_a_time else "")
        )

    def lost(self, units: Sequence[int]) -> list[int]:
        """How many units each layer loses where every layer loses its share, or what is named where that is more."""
        named = self.removed
        return [max(self.share_of(own), len(named.get(layer, ()))) for layer, own in enumerate(units)]

    def share_of(self, units: int) -> int:
        """How many of so many units the count or the ratio asks for."""
        return self.count or round(self.ratio * units)

    def lost_of_all(self, units: Sequence[int]) -> int:
        """How many units all layers together lose."""
        if self.scope == "layer":
            return sum(self.lost(units))
        return max(self.share_of(sum(units)), sum(map(len, self.removed.values())))

    @classmethod
    def foreign(cls, facts: ModelFacts) -> str | None:
        return unlike_bert(facts)

    def refuse(self, facts: ModelFacts) -> str | None:
        # Heads go with their KV group where there are several; inside one group single query heads can go.
        units = facts.kv_heads if facts.kv_heads > 1 else facts.heads
        if found := unknown_head(self.removed, facts.layers, units) or unknown_head(self.kept, facts.layers, units):
            return found
        if not self.ratio and not self.count and not self.remove:
            return "a ratio above 0, a count, or heads to remove: as it is nothing would go"
        lost = self.lost_of_all([units] * facts.layers)
        if lost == 0:
            return f"a ratio of at least {1 / units:.2g}: the model has {units} heads that can go one by one"
        return self._too_many(lost, units, facts.layers)

    def _too_many(self, lost: int, units: int, layers: int) -> str | None:
        """Why a layer would be left with nothing, or would lose what is to be kept; or None."""
        stay = {layer: max(1, len(self.kept.get(layer, ()))) for layer in range(layers)}
        for layer, heads in self.removed.items():
            if len(heads) >= units:
                return f"at least one head in every layer: all {units} of layer {layer} are to be removed"
        if self.scope == "global":
            most = units * layers - sum(stay.values())
            allowed = f"at most {most} of {units * layers} heads" if lost > most else None
        elif (whole := self.share_of(units)) >= units:
            told = f"a count of at most {units - 1}" if self.count else f"at most {1 - 1 / units:.2g}"
            return f"a ratio that leaves at least one of {units} heads, so {told}"
        else:
            layer = max(stay, key=lambda one: stay[one])
            allowed = f"at most {units - stay[layer]} heads of layer {layer}" if whole > units - stay[layer] else None
        return allowed and f"{allowed}, since the others are kept"


def eased(count: int, share: float) -> int:
    """A share of a count, where there is one: 0 means that the ratio counts."""
    return max(1, round(share * count)) if count else 0


def ranked(by: str, usual: str, scope: str = "layer") -> str:
    """What a label says of a ranking that is not the usual one."""
    words = [f"by {by}"] if by != usual else []
    return "".join(f", {word}" for word in (*words, *(["global"] if scope == "global" else [])))


class PruneNeurons(Switch):
    """Feed-forward neurons removed, the least important first."""

    kind: ClassVar[str] = "prune_neurons"
    group: ClassVar[Group] = Group.PRUNING
    order: ClassVar[int] = 130
    title: ClassVar[str] = "Feed-forward neurons"
    summary: ClassVar[str] = "Removes the neurons that add least on a little text: really smaller and faster."
    source: ClassVar[str] = "Sun et al. 2023 (Wanda), over whole neurons"

    ratio: float = Field(0.25, ge=0.0, lt=1.0, description="share of the neurons")
    count: int = Field(0, ge=0, le=MOST_UNITS, description=f"neurons {COUNT_NOTE}")
    by: NeuronRanking = Field(
        "output",
        description="what ranks them: what a neuron adds to its layer's output, the norms of its weights, of its "
        "activation, the first-order change of the loss without it, or chance",
    )
    scope: Scope = Field("layer", description=SCOPE_NOTE)
    seed: int = Field(0, ge=0, le=2**31 - 1, description=SEED_NOTE)

    def eased(self, share: float) -> Self:
        return self.model_copy(update={"ratio": share * self.ratio, "count": eased(self.count, share)})

    @property
    def label(self) -> str:
        if self.count:
            where = " a layer" if self.scope == "layer" else ""
            return f"{self.count:,} neurons fewer{where}" + ranked(self.by, "output", self.scope)
        return f"{self.ratio:.0%} fewer neurons" + ranked(self.by, "output", self.scope)

    def kept(self, ffn: int, layers: int) -> int:
        """How many neurons of a layer stay; their mean where the scope is global."""
        if not self.count:
            return neurons_kept(ffn, self.ratio)
        return ffn - (self.count if self.scope == "layer" else round(self.count / max(1, layers)))

    @classmethod
    def foreign(cls, facts: ModelFacts) -> str | None:
        return unlike_bert(facts)

    def refuse(self, facts: ModelFacts) -> str | None:
        if facts.experts > 1:
            return EXPERTS_INSTEAD
        if not self.ratio and not self.count:
            return "a ratio above 0, or a count: as it is nothing would go"
        if self.kept(facts.ffn, facts.layers) < 1:
            return f"a ratio that leaves at least one of {facts.ffn} neurons, so at most {1 - 1 / facts.ffn:.3g}"
        return None


def neurons_kept(ffn: int, ratio: float) -> int:
    """How many neurons stay: a whole number of blocks of 32, or of smaller ones where 32 would miss the ratio by 1%."""
    exact = (1 - ratio) * ffn
    for step in BLOCKS:
        kept = round(exact / step) * step
        if abs(kept - exact) <= TOLERANCE * ffn and 0 < kept <= ffn:
            return kept
    return round(exact)
