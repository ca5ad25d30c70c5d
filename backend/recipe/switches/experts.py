"""Mixture of experts: how many experts a token passes, how many there are, and how they are held."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.stores import Ground, Matrix, Store, Stored, floats, int4_groups, int8_rows
from backend.recipe.switch import Group, Switch

NO_EXPERTS = "a mixture of experts: every token of this model passes one and the same feed-forward part"
By = Literal["usage", "weights", "random"]


class ExpertSwitch(Switch):
    """What only a model of experts can have."""

    group: ClassVar[Group] = Group.EXPERTS

    @classmethod
    def foreign(cls, facts: ModelFacts) -> str | None:
        return None if facts.experts > 1 else NO_EXPERTS


class ExpertTopK(ExpertSwitch):
    """Another number of experts a token than the model was trained with."""

    kind: ClassVar[str] = "expert_top_k"
    order: ClassVar[int] = 160
    title: ClassVar[str] = "Experts a token"
    summary: ClassVar[str] = "Sends every token to fewer experts or more: each costs its weights to read."
    source: ClassVar[str] = "Shazeer et al. 2017"

    count: int = Field(1, ge=1, le=1024, description="experts that every token passes, in every layer")

    @property
    def label(self) -> str:
        return f"top {self.count}"

    def resize(self, facts: ModelFacts) -> dict[str, Any]:
        return {"used_experts": min(self.count, facts.experts)}

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.count > facts.experts:
            return f"1 to {facts.experts} experts: a layer has no more"
        return None


class ExpertCapacity(ExpertSwitch):
    """A limit to the tokens that one expert takes of a call."""

    kind: ClassVar[str] = "expert_capacity"
    order: ClassVar[int] = 170
    title: ClassVar[str] = "Expert capacity"
    summary: ClassVar[str] = "Drops the tokens of a prompt beyond an expert's fill, as servers of many devices do."
    source: ClassVar[str] = "Fedus et al. 2021 (Switch), eq. 3"

    factor: float = Field(1.25, ge=0.1, le=16.0, description="of an even share of a call's tokens")

    @property
    def label(self) -> str:
        return f"capacity {self.factor:g}"

    @property
    def shape_dependent(self) -> bool:
        return True  # a call of one token drops nothing

    @property
    def changes_weights(self) -> bool:
        return False


class PruneExperts(ExpertSwitch):
    """Whole experts removed from every layer."""

    kind: ClassVar[str] = "prune_experts"
    order: ClassVar[int] = 150
    title: ClassVar[str] = "Fewer experts"
    summary: ClassVar[str] = (
        "Removes the experts that get the fewest tokens: memory shrinks, the speed of decoding does not."
    )
    source: ClassVar[str] = "Lu et al. 2024; usage as in Muzio et al. 2024 (SEER-MoE)"

    count: int = Field(2, ge=1, le=1023, description="experts removed from every layer")
    by: By = Field(
        "usage", description="what says which go: tokens they get on a little text, their weights, or chance"
    )
    seed: int = Field(0, ge=0, le=2**31, description="of chance")

    @property
    def label(self) -> str:
        return f"{self.count} expert{'s' if self.count > 1 else ''} fewer"

    def resize(self, facts: ModelFacts) -> dict[str, Any]:
        left = max(1, facts.experts - self.count)
        return {"experts": left, "used_experts": min(left, facts.used_experts)}

    def refuse(self, facts: ModelFacts) -> str | None:
        most = facts.experts - max(2, facts.used_experts)
        if self.count > most:
            return f"at most {most} experts: {max(2, facts.used_experts)} of {facts.experts} must be left"
        return None


class MergeExperts(ExpertSwitch):
    """The experts made one dense feed-forward part, to see what a dense model of their size costs."""

    kind: ClassVar[str] = "merge_experts"
    order: ClassVar[int] = 155
    title: ClassVar[str] = "One dense part instead"
    summary: ClassVar[str] = (
        "Joins experts into one dense part: the speed of a dense model of that size is real, its text needs training."
    )
    source: ClassVar[str] = "the comparison of Shazeer et al. 2017, section 5"

    count: int = Field(
        8, ge=1, le=1024, description="experts joined; all are the equal total size, k the equal active size"
    )

    @property
    def label(self) -> str:
        return f"dense of {self.count} expert{'s' if self.count > 1 else ''}"

    def resize(self, facts: ModelFacts) -> dict[str, Any]:
        return {"experts": 1, "used_experts": 1, "expert_ffn": 0, "ffn": self.count * facts.expert_ffn}

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.count > facts.experts:
            return f"1 to {facts.experts} experts: a layer has no more"
        return None

    def clash(self, other: Switch) -> str | None:
        if isinstance(other, ExpertSwitch | QuantizeExperts):
            return "no other switch of experts: none are left once they are one dense part"
        return None


class SplitExperts(Switch):
    """A dense model's feed-forward parts cut into experts, with a router beside them."""

    kind: ClassVar[str] = "split_experts"
    group: ClassVar[Group] = Group.EXPERTS
    order: ClassVar[int] = 145
    title: ClassVar[str] = "Dense part into experts"
    summary: ClassVar[str] = (
        "Cuts each feed-forward part into experts and lets a token pass a few: fast, but it needs training to be good."
    )
    source: ClassVar[str] = "Zhang et al. 2022 (MoEfication)"
    decoders_only: ClassVar[str] = "a decoder whose feed-forward part has a gate"

    experts: int = Field(8, ge=2, le=64, description="parts of equal size")
    top_k: int = Field(4, ge=1, le=64, description="of which a token passes so many; all of them are the dense model")

    @property
    def label(self) -> str:
        return f"{self.experts} experts, top {self.top_k}"

    def resize(self, facts: ModelFacts) -> dict[str, Any]:
        return {"experts": self.experts, "used_experts": self.top_k, "expert_ffn": facts.ffn // self.experts}

    def refuse(self, facts: ModelFacts) -> str | None:
        if facts.experts > 1:
            return "a dense model: this one has experts already"
        if self.top_k > self.experts:
            return f"top_k from 1 to {self.experts}, the number of experts"
        if facts.ffn % self.experts:
            return f"a number of experts that divides the {facts.ffn} neurons of a layer"
        return None


class QuantizeExperts(Switch):
    """Experts in fewer bits than the rest, since they hold most of the weights and each is seldom read."""

    kind: ClassVar[str] = "quantize_experts"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 350
    title: ClassVar[str] = "Experts in fewer bits"
    summary: ClassVar[str] = "Packs the experts, and leaves attention, router and head as they are, or in int8."
    source: ClassVar[str] = "Frantar & Alistarh 2023 (QMoE); Kim et al. 2023 (MoQE)"

    level: Literal["int8", "int4"] = Field("int4", description="of the experts")
    group_size: Literal[32, 64, 128] = Field(32, description="weights that share a scale, of int4")
    rest: Literal["keep", "int8"] = Field("keep", description="attention and head; the router is always kept")

    @property
    def label(self) -> str:
        return f"experts {self.level}" + ("" if self.rest == "keep" else f", rest {self.rest}")

    @property
    def multiplies(self) -> str:
        return "bfloat16" if self.level == "int4" else ""

    def stores(self, ground: Ground) -> Stored:
        rest = int8_rows if self.rest == "int8" else floats(ground.width)
        packed: Store = int8_rows if self.level == "int8" else int4_groups(self.group_size, ground.width)

        def body(matrix: Matrix) -> float:
            return (packed if matrix.expert else rest)(matrix)

        return Stored(body, rest if self.rest == "int8" else None)

    @classmethod
    def foreign(cls, facts: ModelFacts) -> str | None:
        return None if facts.experts > 1 else NO_EXPERTS

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.level == "int4" and facts.has_gpu:
            return "int8, or a CPU: experts of four bits have kernels of their own there only"
        if self.level == "int4" and facts.expert_ffn < self.group_size:
            return f"groups no larger than an expert's {facts.expert_ffn} neurons"
        return None
