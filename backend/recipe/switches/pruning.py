"""Pruning: parts of the model that are taken out."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Group, Switch

BLOCKS = (32, 16, 8, 4, 2, 1)  # packed kernels want whole blocks of 32
TOLERANCE = 0.01  # of the ratio that was asked for
BERT_LIKE = ("bert", "camembert", "electra", "roberta", "xlm-roberta")  # encoders whose heads and neurons can be cut


def _unlike_bert(facts: ModelFacts) -> str | None:
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

    ratio: float = Field(0.25, ge=0.0, lt=1.0, description="share of the heads of every layer")

    @property
    def label(self) -> str:
        return f"{self.ratio:.0%} fewer heads"

    @classmethod
    def foreign(cls, facts: ModelFacts) -> str | None:
        return _unlike_bert(facts)

    def refuse(self, facts: ModelFacts) -> str | None:
        # Heads go with their KV group where there are several; inside one group single query heads can go.
        units = facts.kv_heads if facts.kv_heads > 1 else facts.heads
        removed = round(self.ratio * units)
        if removed == 0 and self.ratio > 0:
            return f"a ratio of at least {1 / units:.2g}: the model has {units} heads that can go one by one"
        if removed >= units:
            return f"a ratio that leaves at least one of {units} heads, so at most {1 - 1 / units:.2g}"
        return None


class PruneNeurons(Switch):
    """Feed-forward neurons removed, the least important first."""

    kind: ClassVar[str] = "prune_neurons"
    group: ClassVar[Group] = Group.PRUNING
    order: ClassVar[int] = 130
    title: ClassVar[str] = "Feed-forward neurons"
    summary: ClassVar[str] = "Removes the neurons that add least on a little text: really smaller and faster."
    source: ClassVar[str] = "Sun et al. 2023 (Wanda), over whole neurons"

    ratio: float = Field(0.25, ge=0.0, lt=1.0, description="share of the neurons of every layer")

    @property
    def label(self) -> str:
        return f"{self.ratio:.0%} fewer neurons"

    @classmethod
    def foreign(cls, facts: ModelFacts) -> str | None:
        return _unlike_bert(facts)


def neurons_kept(ffn: int, ratio: float) -> int:
    """How many neurons stay: a whole number of blocks of 32, or of smaller ones where 32 would miss the ratio by 1%."""
    exact = (1 - ratio) * ffn
    for step in BLOCKS:
        kept = round(exact / step) * step
        if abs(kept - exact) <= TOLERANCE * ffn and 0 < kept <= ffn:
            return kept
    return round(exact)


class DropLayers(Switch):
    """Whole layers removed, those that change their input least first."""

    kind: ClassVar[str] = "drop_layers"
    group: ClassVar[Group] = Group.PRUNING
    order: ClassVar[int] = 110
    title: ClassVar[str] = "Whole layers"
    summary: ClassVar[str] = (
        "Removes the layers that change their input least: speed grows in proportion, text suffers."
    )
    source: ClassVar[str] = "Men et al. 2024 (ShortGPT), Block Influence"
    decoders_only: ClassVar[str] = "a decoder; layers of an encoder are not dropped so far"

    count: int = Field(1, ge=1, le=1000, description="how many layers")

    @property
    def label(self) -> str:
        return f"{self.count} layer{'s' if self.count > 1 else ''} fewer"

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.count >= facts.layers:
            return f"1 to {facts.layers - 1} layers: the model has {facts.layers}"
        return None
