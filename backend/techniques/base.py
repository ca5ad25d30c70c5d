"""What a technique gets and gives: a subject to change in place, and an effect read back from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from backend.recipe.facts import ModelFacts
from backend.techniques.guess import Proposer

Pooling = Literal["mean", "first"]  # the mean over real tokens, or the first token's state alone


@dataclass(frozen=True)
class Skipped:
    """One layer (or a family of them) that a technique left as it was, and why."""

    layer: str
    reason: str


@dataclass
class Effect:
    """What a switch really did, read back from the live model and never echoed from the request."""

    kind: str
    took_effect: bool
    summary: str  # one clause for the verdict card: '57 layers int8, head int8'
    facts: dict[str, Any] = field(default_factory=dict)  # JSON scalars only
    skipped: list[Skipped] = field(default_factory=list)
    simulated: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the journal."""
        return asdict(self)


@dataclass
class DecodePlan:
    """How the engine is to decode: techniques of the stations cache, draft and runtime set these."""

    make_cache: Callable[[int], Cache] | None = None  # total tokens -> an empty cache; None is the dynamic one
    proposer: Proposer | None = None
    forward: Callable[..., Any] | None = None  # a compiled stand-in for model.__call__ in one-token steps
    threads: int | None = None


@dataclass(frozen=True)
class Run:
    """What was seen while a few tokens really ran; for techniques whose effect shows nowhere else."""

    cache: str  # class of the cache that the run built
    cache_layers: tuple[str, ...]  # classes of its layers
    slots: tuple[int, ...]  # tokens for which each layer holds memory
    tokens: int  # tokens that the cache has seen
    decode_kernels: dict[str, int] = field(default_factory=dict)  # attention kernels of a step, see kernels.py
    prefill_kernels: dict[str, int] = field(default_factory=dict)
    compiled_regions: int = 0  # compiled code entered in a step
    busy_threads: int | None = None  # threads that computed; None where the system keeps no account
    rounds: int = 0  # times that a proposer was asked
    drafted: int = 0  # tokens that it guessed


@dataclass(frozen=True)
class CalibrationText:
    """Tokens on which a technique may look at the model, and where they come from. They are scored nowhere."""

    ids: list[int]
    source: str


@dataclass
class Subject:
    """A live model under change, with what techniques may need besides."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    facts: ModelFacts
    device: torch.device
    plan: DecodePlan = field(default_factory=DecodePlan)
    load_other: Callable[[str], Subject] | None = None  # loads a second model, for example a draft
    longest: int | None = None  # tokens of the longest request to come, prompt included, where that is known
    sample_ids: list[int] = field(default_factory=list)  # a little real text of the model's own kind
    read_text: Callable[[str, int], CalibrationText] | None = None  # file ('' is the own text), tokens -> more of it
    shelf: Path | None = None  # where what took long to compute is kept between runs
    progress: Callable[[float, str], None] = lambda share, text: None
    notes: dict[str, Any] = field(default_factory=dict)  # what apply() wants to tell read_back()
    run: Run | None = None  # what the engine saw of a run before it asks read_back()
    pooling: Pooling = "mean"  # of an encoder: how hidden states become a vector

    @property
    def opening(self) -> list[int]:
        """The token that the tokenizer puts before every text by itself (Gemma, Llama): without it they are lost."""
        if self.tokenizer is None or self.tokenizer.bos_token_id is None:
            return []
        first = self.tokenizer.encode("")[:1]
        return first if first == [self.tokenizer.bos_token_id] else []

    def linears(self) -> dict[str, nn.Linear]:
        """Every linear layer by its dotted name, the output head last."""
        return {n: m for n, m in self.model.named_modules() if isinstance(m, nn.Linear)}


class Technique(Protocol):
    """One way to change a subject. Register it with `@technique(SwitchClass)`."""

    def apply(self, subject: Subject, switch: Any) -> None:
        """Change the subject in place.

        Raises:
            RecipeError: when this model cannot be changed so; nothing else is raised on purpose.
        """

    def read_back(self, subject: Subject, switch: Any) -> Effect:
        """Look at the live subject and say what is true of it now."""


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the dotted `name` points."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The stack of decoder layers of a causal language model of transformers."""
    base = getattr(model, "model", model)
    layers = getattr(base, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise TypeError(f"{type(model).__name__} has no stack of layers that is known here")
    return layers


def tensor_bytes(*tensors: Tensor | None) -> int:
    """Bytes of the storages behind the tensors, each storage once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t is not None}
    return sum(storages.values())


def cache_bytes(cache: Cache) -> int:
    """Bytes that a cache's tensors hold, each storage once; a static cache counts all that it took."""
    return tensor_bytes(*(tensor for layer in cache.layers for tensor in layer_states(layer)))


def layer_states(layer: Any) -> list[Tensor]:
    """The tensors in which one layer of a cache holds its tokens, counters left out."""
    held = getattr(layer, "states", None)  # of a layer that holds them in more than its own attributes
    every = vars(layer).values() if held is None else held
    return [tensor for tensor in every if isinstance(tensor, Tensor) and tensor.dim() > 1]
