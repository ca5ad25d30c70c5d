"""LoRA: adapters of low rank beside the matrices, trained in their place and merged into them at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.method import Method

if TYPE_CHECKING:
    from backend.recipe.training import Training

Targets = Literal["attention", "mlp", "all"]
_FILLED = "adapters that are merged into a matrix fill its zeros"
_PLAIN = ("gradual_magnitude", "movement")  # they set weights to zero by what training makes of them
NO_GATE = frozenset({"gpt2", "gpt_neox", "opt", "starcoder2"})  # decoders whose feed-forward part has two matrices


class Lora(Method):
    """Two thin matrices beside each wide one; the wide ones stay as they are until both are added to them."""

    kind: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    summary: ClassVar[str] = (
        "Trains adapters of low rank beside the matrices and merges them at the end: little memory of gradients and "
        "optimizer, weights and activations as before."
    )
    source: ClassVar[str] = "Hu et al. 2021; peft"

    rank: int = Field(16, ge=1, le=4096, description="of the adapters: more learns more and takes more memory")
    alpha: float = Field(
        32.0, gt=0.0, le=1e5, description="an adapter's output counts alpha / rank; twice the rank is the custom"
    )
    targets: Targets = Field("all", description="which matrices of the layers get an adapter")

    @property
    def label(self) -> str:
        """Where, unless everywhere, and how wide."""
        where = "" if self.targets == "all" else f" of {self.targets}"
        return f"LoRA{where} of rank {self.rank}"

    def trained_share(self, facts: ModelFacts) -> float | None:
        """Rank x (inputs + outputs) of every matrix that gets an adapter, by the model's sizes."""
        sides = (self.targets != "mlp") * _attention(facts) + (self.targets != "attention") * _mlp(facts)
        return min(1.0, self.rank * facts.layers * sides / max(1, facts.parameters))

    def unfit(self, asked: Training) -> str | None:
        """Zeros that would not stay."""
        if any(switch.zeros.share for switch in asked.student.pipeline):
            return f"a student without single weights set to zero: {_FILLED}"
        return None

    def clash(self, other: Method) -> str | None:
        """What changes the matrices themselves while they train."""
        if other.kind in _PLAIN:
            return f"{_FILLED}, and the matrices, which it chooses by, do not train"
        if other.kind == "qat":
            return "adapters are merged in floats after the last step, which moves weights off what was quantized"
        return None


def _attention(facts: ModelFacts) -> int:
    """Inputs plus outputs of one layer's four matrices."""
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    return 2 * (query + facts.hidden) + 2 * (key + facts.hidden)


def _mlp(facts: ModelFacts) -> int:
    """The same of its feed-forward part: of all experts where there are several, whose gate and up are one matrix."""
    if facts.experts > 1:
        return facts.experts * (3 * facts.expert_ffn + 2 * facts.hidden)
    two = facts.task == "encoder" or facts.architecture in NO_GATE
    return (2 if two else 3) * (facts.hidden + facts.ffn)
