"""Attention: the kernel that computes it, and how many key-value heads it keeps."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Group, Switch

PACKAGES = ("flash_attention_2", "flash_attention_3")  # come in a package of their own
ON_A_GPU = ("sdpa_efficient", "sdpa_cudnn", *PACKAGES)


class AttentionKernel(Switch):
    """Which implementation computes attention; without it sdpa, torch's own choice of its backends."""

    kind: ClassVar[str] = "attention_kernel"
    group: ClassVar[Group] = Group.ATTENTION
    order: ClassVar[int] = 410
    title: ClassVar[str] = "Attention kernel"
    summary: ClassVar[str] = "Same result, another kernel: fused ones never write the score matrix to memory."
    source: ClassVar[str] = "transformers attention interface; torch.nn.attention"
    hint: ClassVar[str] = "A backend that cannot do a call leaves it to torch's next one; the receipt names what ran."

    name: Literal[
        "eager",
        "sdpa",
        "sdpa_math",
        "sdpa_efficient",
        "sdpa_flash",
        "sdpa_cudnn",
        "flex",
        "flash_attention_2",
        "flash_attention_3",
    ] = Field("eager", description="eager and sdpa_math write all scores out; flex is compiled at its first calls")

    @property
    def label(self) -> str:
        return f"{self.name} attention"

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.name in ON_A_GPU and not facts.has_gpu:
            package = " and its package" if self.name in PACKAGES else ""
            return f"eager, sdpa, sdpa_math, sdpa_flash or flex: this kernel needs a CUDA GPU{package}"
        return None

    def alone(self) -> str | None:
        return (
            None
            if self.name == "sdpa"
            else "a batch attends by torch's scaled_dot_product_attention, its backend of torch's choice"
        )

    @classmethod
    def for_batch(cls) -> dict[str, Any]:
        return {"name": "sdpa"}


class KVHeads(Switch):
    """Fewer key-value heads, one for each group of them: GQA, and MQA at one."""

    kind: ClassVar[str] = "kv_heads"
    group: ClassVar[Group] = Group.ATTENTION
    order: ClassVar[int] = 200
    title: ClassVar[str] = "Key-value heads"
    summary: ClassVar[str] = "Query heads share keys and values: the KV cache shrinks; quality needs uptraining."
    source: ClassVar[str] = "Ainslie et al. 2023 (GQA); groups of similar heads: Chen et al. 2024"
    hint: ClassVar[str] = (
        "Nothing is trained here: the page Train uptrains it. The paper takes 5% of the first training's steps."
    )
    decoders_only: ClassVar[str] = "a decoder: shared keys and values save cache, and an encoder keeps none"

    count: int = Field(1, ge=1, le=1024, description="key-value heads to keep: 1 is MQA, all is MHA")
    grouping: Literal["mean", "first", "activation"] = Field(
        "mean", description="neighbours' mean, the first of neighbours, or the mean of heads that act alike on text"
    )

    @property
    def changes_weights(self) -> bool:
        return True

    @property
    def label(self) -> str:
        kept = "MQA" if self.count == 1 else f"GQA {self.count}"
        return kept + {"mean": "", "first": ", first heads", "activation": ", like with like"}[self.grouping]

    def refuse(self, facts: ModelFacts) -> str | None:
        if facts.kv_heads == 1:
            return "nothing: the model has one key-value head already, so it is MQA by birth"
        if self.count >= facts.kv_heads:
            return f"fewer than the model's {facts.kv_heads} key-value heads"
        if facts.kv_heads % self.count:
            divisors = [n for n in range(1, facts.kv_heads) if facts.kv_heads % n == 0]
            return f"a count that divides {facts.kv_heads}: {', '.join(map(str, divisors))}"
        return None

    def clash(self, other: Switch) -> str | None:
        # Pruning goes first and changes how many heads there are to pool.
        if other.kind == "prune_heads":
            return "pruned heads leave groups of unequal meaning; pool or prune, not both"
        return None
