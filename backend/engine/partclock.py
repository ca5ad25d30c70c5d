"""The part clock: whose time it is while a model computes, told by hooks at the modules and not by a profiler.

A profiler's cost a call is as large as a small model's operators; two readings of a clock a module are not. What they
cost all the same is measured and taken out by engine/breakdown.py: half from the place entered, half from the one
around.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle
from transformers import Cache

from backend.techniques.base import Subject, decoder_layers
from backend.techniques.quantize.layers import is_linear

PARTS = ("embed", "attention", "feed_forward", "norm", "head", "cache", "sampling", "python")
_NAMES = {
    "attention": ("self_attn", "attn", "attention", "self_attention"),
    "feed_forward": ("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe"),
}


class Place(NamedTuple):
    """Where time is spent: a part, whether in a layer that multiplies by a matrix, and the decoder layer."""

    part: str
    linear: bool
    layer: int | None


OUTSIDE = Place("sampling", False, None)  # in the decoder, but not in the model


@dataclass
class PartClock:
    """Seconds, and on demand operator calls, by place. What passes belongs to the innermost place entered."""

    spent: Counter[Place] = field(default_factory=Counter)
    calls: Counter[Place] = field(default_factory=Counter)
    ends: Counter[Place] = field(default_factory=Counter)  # of hooked calls: one each for a place and the one around it
    _stack: list[Place] = field(default_factory=lambda: [OUTSIDE])
    _since: float = 0.0

    def start(self) -> None:
        """Begin at zero, outside the model."""
        self.spent, self.ends, self._stack = Counter(), Counter(), [OUTSIDE]
        self._since = time.perf_counter()

    def stop(self) -> Counter[Place]:
        """End, and give what was spent since `start`; what a watched cache does later is in none of it."""
        self._mark()
        spent, self.spent = self.spent, Counter()
        return spent

    @property
    def place(self) -> Place:
        """Where it is now."""
        return self._stack[-1]

    def enter(self, place: Place) -> None:
        """What follows belongs to this place."""
        self._mark()
        self._stack.append(place)

    def leave(self) -> None:
        """Back to the place around it."""
        self._mark()
        self._stack.pop()

    def _mark(self) -> None:
        now = time.perf_counter()
        self.spent[self._stack[-1]] += now - self._since  # type: ignore[assignment]
        self._since = now

    def timed(self, work: Callable[..., Any], place: Place | None) -> Callable[..., Any]:
        """`work` with its time given to a place; without one to the cache of the layer that calls."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.enter(place or Place("cache", False, self.place.layer))
            try:
                return work(*args, **kwargs)
            finally:
                self.leave()

        return run

    def watch_cache(self, cache: Cache) -> Cache:
        """Give the time of a cache's updates to the part 'cache'."""
        cache.update = self.timed(cache.update, None)  # type: ignore[method-assign]
        return cache

    def hook(self, module: nn.Module, place: Place) -> list[RemovableHandle]:
        """Give the time of a module's calls to a place, and count them."""

        def begin(_: nn.Module, __: Any) -> None:
            self.ends[self.place] += 1
            self.ends[place] += 1
            self.enter(place)

        def end(_: nn.Module, __: Any, ___: Any) -> None:
            self.leave()

        return [module.register_forward_pre_hook(begin), module.register_forward_hook(end, always_call=True)]

    @contextmanager
    def hooked(self, subject: Subject) -> Iterator[None]:
        """Hooks at every module that is a part of its own; gone with the block."""
        handles = [handle for module, place in places(subject) for handle in self.hook(module, place)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class CountCalls(TorchDispatchMode):
    """Counts the operators that are called at each place of a clock. Too slow to be timed with."""

    def __init__(self, clock: PartClock) -> None:
        super().__init__()
        self._clock = clock

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and call."""
        self._clock.calls[self._clock.place] += 1
        return func(*args, **(kwargs or {}))


def places(subject: Subject) -> list[tuple[nn.Module, Place]]:
    """Every module that begins a place, with it."""
    model = subject.model
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    found: list[tuple[nn.Module, Place]] = [(model, Place("python", False, None))]
    within: dict[int, Place] = {id(model): found[0][1]}
    layers = {id(layer): number for number, layer in enumerate(_layers(model))}
    for name, module in model.named_modules():
        parent = within.get(id(model.get_submodule(name.rpartition(".")[0])), found[0][1])
        place = _place(name.rpartition(".")[2], module, parent, layers.get(id(module), parent.layer))
        if module is head:
            place = Place("head", is_linear(module), None)
        elif module is embedding:
            place = Place("embed", False, None)
        within[id(module)] = place
        if place != parent:
            found.append((module, place))
    return found


def _layers(model: nn.Module) -> list[nn.Module]:
    try:
        return list(decoder_layers(model))
    except TypeError:
        return []


def _place(leaf: str, module: nn.Module, parent: Place, layer: int | None) -> Place:
    if "norm" in type(module).__name__.lower():
        return Place("norm", False, layer)
    part = next((part for part, names in _NAMES.items() if leaf in names), parent.part)
    return Place(part, is_linear(module), layer)
