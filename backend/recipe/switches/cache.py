"""The KV cache: how keys and values of past tokens are kept. Without a switch it grows token by token."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from backend.recipe.base import RecipeError
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
    """Only the last tokens are kept, and a few of the first beside them."""

    kind: ClassVar[str] = "window_cache"
    group: ClassVar[Group] = Group.CACHE
    order: ClassVar[int] = 400
    title: ClassVar[str] = "Sliding window"
    summary: ClassVar[str] = "Keeps the last tokens only: memory stops growing, and what left the window is forgotten."
    source: ClassVar[str] = "Beltagy et al. 2020 (Longformer); sinks: Xiao et al. 2024 (StreamingLLM)"
    hint: ClassVar[str] = "Inspect, Context: what a window loses as a text gets longer, and what sinks mend."

    window: int = Field(64, ge=4, le=1_000_000, description="tokens that stay, sinks among them")
    sinks: int = Field(0, ge=0, le=1_000_000, description="of these the first of the text, which attention rests on")

    @model_validator(mode="after")
    def _room_for_the_last(self) -> Self:
        if self.sinks >= self.window:
            allowed = f"at most {self.window - 1}, below the window of {self.window}"
            raise RecipeError("switches.window_cache.sinks", self.sinks, allowed, "Keep fewer, or widen the window.")
        return self

    @property
    def label(self) -> str:
        sinks = f", {self.sinks} sink{'s' if self.sinks > 1 else ''}" if self.sinks else ""
        return f"window {self.window}{sinks}"

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.window >= facts.context:
            return f"a window below the model's context of {facts.context} tokens"
        if self.sinks and facts.sliding_layers == facts.layers:
            return "no sinks: every layer of this model slides by itself, without its first tokens"
        return None

    def cached(self, facts: ModelFacts, tokens: int, width: int) -> int:
        # Sinks' keys are kept as they were, and half turned, besides: as much as a key and a value each.
        return (min(tokens, self.window) + min(tokens, self.sinks)) * width * facts.kv_values_per_layer

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
