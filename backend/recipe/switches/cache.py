"""The KV cache: how keys and values of past tokens are kept. Without a switch it grows token by token."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Group, Switch


class StaticCache(Switch):
    """All memory of the cache taken at the start."""

    kind: ClassVar[str] = "static_cache"
    group: ClassVar[Group] = Group.CACHE
    order: ClassVar[int] = 400
    title: ClassVar[str] = "Static cache"
    summary: ClassVar[str] = (
        "Takes the whole cache at once: no copying, friendly to compilation, attends to empty slots."
    )
    source: ClassVar[str] = "transformers StaticCache"

    def clash(self, other: Switch) -> str | None:
        if other.group == Group.DRAFT:
            return "rejected drafts are cut from the cache, and a static cache cannot be cut; use the dynamic one"
        return None


class WindowCache(Switch):
    """Only the last tokens are kept."""

    kind: ClassVar[str] = "window_cache"
    group: ClassVar[Group] = Group.CACHE
    order: ClassVar[int] = 400
    title: ClassVar[str] = "Sliding window"
    summary: ClassVar[str] = "Keeps the last tokens only: memory stops growing, and what left the window is forgotten."
    source: ClassVar[str] = "Beltagy et al. 2020 (Longformer)"

    window: int = Field(64, ge=4, le=1_000_000, description="tokens that stay")

    @property
    def label(self) -> str:
        return f"window {self.window}"

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.window >= facts.context:
            return f"a window below the model's context of {facts.context} tokens"
        return None

    def cached(self, facts: ModelFacts, tokens: int, width: int) -> int:
        return min(tokens, self.window) * width * facts.kv_values_per_layer

    def clash(self, other: Switch) -> str | None:
        if other.group == Group.DRAFT:
            return "rejected drafts are cut from the cache, and what left the window cannot come back"
        return None


class OffloadedCache(Switch):
    """Keys and values in the host's memory, but for the layer that computes and the next."""

    kind: ClassVar[str] = "offloaded_cache"
    group: ClassVar[Group] = Group.CACHE
    order: ClassVar[int] = 400
    title: ClassVar[str] = "Offloaded cache"
    summary: ClassVar[str] = (
        "Keeps each layer's keys and values in the host's memory until it computes: a GPU holds two layers' at a time, "
        "and each step moves the rest over the bus."
    )
    source: ClassVar[str] = "transformers DynamicCache(offloading=True)"

    def refuse(self, facts: ModelFacts) -> str | None:
        if not facts.has_gpu:
            return "a CUDA GPU: on a CPU the cache lies in the host's memory already"
        return None

    def clash(self, other: Switch) -> str | None:
        if other.group == Group.DRAFT:
            return "rejected drafts are cut from the cache, whose layers are on their way between two memories"
        if other.kind == "compile":
            return "layers of the cache move while a step runs, and a compiled step holds them where they were"
        if other.kind == "device" and getattr(other, "name", "") != "cuda":
            return "layers wait in the host's memory for a CUDA GPU, and the model would lie elsewhere"
        return None
