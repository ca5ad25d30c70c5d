"""A model of some of another's layers: the same weights, the same head, fewer steps between."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache

from backend.techniques.anatomy import stack
from backend.techniques.base import DecodePlan, Subject
from backend.techniques.draft.proposer import DraftModelProposer
from backend.techniques.guess import Chooser, Guess, Source

PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")  # lists of a config with one entry a layer


class OwnLayersProposer(DraftModelProposer):
    """Guesses with some of the model's layers, in a cache of their own."""

    source: Source = "layers"

    @property
    def weights_bytes(self) -> int:
        """None: every weight is the model's."""
        return 0


class SharedCacheProposer(OwnLayersProposer):
    """The same, attending to the keys and values that the whole model cached in those layers.

    Nothing is read twice and nothing more is held: what a round of guesses adds is taken out again before the model
    verifies. After an early exit (the first layers) they are the very values that the few layers would compute.
    """

    def __init__(self, draft: Subject, kept: Sequence[int], *rest: Any) -> None:
        super().__init__(draft, *rest)
        self._kept = tuple(kept)

    @property
    def kv_bytes(self) -> int:
        """None: it is the model's."""
        return 0

    def start(self, ids: list[int], cache: Cache) -> None:
        """Look into the model's cache from now on."""
        self._cache = DynamicCache(config=self.draft.model.config)
        self._cache.layers = [cache.layers[layer] for layer in self._kept]

    @torch.inference_mode()
    def propose(self, ids: list[int], chooser: Chooser, most: int) -> Guess:
        """Guess, and leave the cache as it was: with every token but the last."""
        self._seen = len(ids) - 1
        guess = super().propose(ids, chooser, most)
        if guess.tokens:
            self._cache.crop(-len(self._main))
        return guess

    def accepted(self, path: Sequence[int]) -> None:
        """Nothing to do: the model's own cache is kept in order by the engine."""


def few_layers(subject: Subject, kept: Sequence[int], kind: str) -> Subject:
    """The subject with these layers only. Modules are new down to each attention, their weights are the same tensors.

    Raises:
        RecipeError: naming the switch `kind`, for a model whose layers are not where they are known to be.
    """
    layers = stack(subject.model, kind)
    config = copy.deepcopy(subject.model.config)
    inner = config.get_text_config(decoder=True)
    inner.num_hidden_layers = len(kept)
    for name in PER_LAYER:
        entries = getattr(inner, name, None)
        if isinstance(entries, list) and len(entries) == len(layers):
            setattr(inner, name, [entries[layer] for layer in kept])
    model, base = _twin(subject.model), _twin(getattr(subject.model, "model", None))
    model.config, base.config = config, inner
    base._modules["layers"] = nn.ModuleList([_renumbered(layers[old], new) for new, old in enumerate(kept)])
    model._modules["model"] = base
    share = len(kept) / len(layers)
    facts = replace(subject.facts, name=f"{len(kept)} of its own {len(layers)} layers", layers=len(kept))
    body = subject.facts.parameters - subject.facts.embedding_parameters
    facts = replace(facts, parameters=round(subject.facts.embedding_parameters + share * body))
    return replace(subject, model=model, facts=facts, plan=DecodePlan(), run=None)


def _twin(module: Any) -> Any:
    """The module again, with a list of children of its own: one can be replaced and the original stays as it is."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _renumbered(layer: nn.Module, position: int) -> nn.Module:
    """The layer at another place of the stack: what asks the cache by a number asks by the new one."""
    twin = _twin(layer)
    if hasattr(twin, "layer_idx"):
        twin.layer_idx = position
    for name, child in layer._modules.items():
        if child is not None and any(hasattr(part, "layer_idx") for part in child.modules()):
            twin._modules[name] = _renumbered(child, position)
    return twin
