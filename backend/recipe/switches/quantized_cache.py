"""The quantized KV cache: keys and values of older tokens packed into a few bits each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Group, Switch

Bits = Literal[8, 4, 2]
SCALE_BYTES = 2 * 2  # of a group: its step and its lowest value, fp16 each


class QuantizedCache(Switch):
    """Keys by channel, values by token, the newest tokens in full."""

    kind: ClassVar[str] = "quantized_cache"
    group: ClassVar[Group] = Group.CACHE
    order: ClassVar[int] = 400
    title: ClassVar[str] = "Quantized cache"
    summary: ClassVar[str] = (
        "Packs older keys and values into 8, 4 or 2 bits: a longer context fits, and each step unpacks it again."
    )
    source: ClassVar[str] = "Liu et al. 2024 (KIVI)"
    hint: ClassVar[str] = "Inspect, Context: up to how many tokens each choice is safe for this model."

    key_bits: Bits = Field(4, description="bits of a key's number")
    value_bits: Bits = Field(4, description="bits of a value's number")
    group_size: int = Field(32, ge=8, le=256, description="tokens of keys, and channels of values, that share a scale")
    recent: int = Field(32, ge=0, le=4096, description="newest tokens that always stay in full")

    @property
    def label(self) -> str:
        if self.key_bits == self.value_bits:
            return f"int{self.key_bits} cache"
        return f"int{self.key_bits} keys, int{self.value_bits} values"

    def refuse(self, facts: ModelFacts) -> str | None:
        size = facts.head_dim
        for bits in (self.key_bits, self.value_bits):
            if size % (8 // bits):
                allowed = ", ".join(str(n) for n in (8, 4, 2) if size % (8 // n) == 0)
                return f"bits by which heads of {size} numbers fill whole bytes: {allowed}"
        if size % min(self.group_size, size):
            divisors = ", ".join(str(n) for n in range(8, min(size, 256) + 1) if size % n == 0)
            return f"a group_size that divides the head size of {size}: {divisors or f'at least {size}'}"
        return None

    def clash(self, other: Switch) -> str | None:
        if other.group == Group.DRAFT:
            return "rejected drafts are cut from the cache, and packed tokens cannot be told apart from the cut ones"
        if other.kind == "compile":
            return "tokens are packed as the text grows, and each time the step would be compiled anew"
        return None

    def cached(self, facts: ModelFacts, tokens: int, width: int) -> int:
        blocks = max(0, tokens - self.recent) // self.group_size
        packed = blocks * self.group_size
        return (
            round(packed * self.cached_per_token(facts, width)) + (tokens - packed) * width * facts.kv_values_per_layer
        )

    def cached_per_token(self, facts: ModelFacts, width: int) -> float:
        each = facts.kv_values_per_layer / 2  # numbers of a token's keys, and as many of its values
        keys = self.key_bits / 8 + SCALE_BYTES / self.group_size
        values = self.value_bits / 8 + SCALE_BYTES / max(1, min(self.group_size, facts.head_dim))
        return each * (keys + values)
