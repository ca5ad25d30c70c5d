"""The thinner: a lane's model pruned a little more at every call, and scored against what it was."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any

import torch
from torch import Tensor

from backend.engine.memory import give_back, module_parameters
from backend.engine.quality import compare, prompt_rows
from backend.recipe.base import RecipeError
from backend.recipe.named import write_heads, write_layers
from backend.recipe.switches.layers import DropLayers
from backend.recipe.switches.pruning import PruneHeads, PruneNeurons
from backend.recipe.thinning import Thinning
from backend.techniques.anatomy import attentions, head_widths, mlps, stack
from backend.techniques.base import Subject
from backend.techniques.prune.heads import part_of
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.registry import apply_switch

TOKENS = 128  # scored after every step
ROWS = 16  # at a time, so that a large vocabulary takes no second (T, V)


class Thinner:
    """Thins one lane's model. Its methods are verbs of the lane."""

    def __init__(self, subject: Subject, held_out: list[int]) -> None:
        self._subject, self._held_out = subject, held_out
        self._asked: Thinning | None = None
        self._ids: list[int] = []
        self._base = torch.empty(0)  # (T, V) log-probabilities of the model before the first step
        self._alive: list[list[int]] = []  # by layer, its units by their first numbers
        self._layers: list[int] = []  # layers by their first numbers
        self._whole = 0

    def thin_start(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Hold the output of the model as it is; how many units it has, and how large it is.

        Raises:
            RecipeError: for a model whose parts are not known, or whose weights are random.
        """
        subject, self._asked = self._subject, Thinning.read(asked)
        if subject.facts.random_weights:
            raise RecipeError("model", subject.facts.name, "a model with weights of its own", "Choose one.")
        self._ids = self._held_out[: prompt_rows(TOKENS + 1, subject.facts.vocab) + 1]
        self._base = torch.log_softmax(self._logits().float(), dim=-1)
        units = _UNITS[self._asked.part](subject)
        self._whole, self._layers = sum(units), list(range(len(units)))
        self._alive = [list(range(count)) for count in units]
        return {"units": self._whole, "layers": len(units), "tokens": len(self._base), **self._size()}

    def thin_step(self) -> dict[str, Any]:
        """Prune a step more and score; `reason` alone where nothing more can go."""
        if self._asked is None:
            raise RuntimeError("the thinning has not been asked for")
        try:
            apply_switch(self._subject, self._next(self._asked))
        except RecipeError as error:
            return {"reason": f"nothing more can go: {error.allowed} is possible"}
        give_back()
        self._follow(self._asked.part)
        left = sum(_UNITS[self._asked.part](self._subject))
        return {"left": left, "removed": self._removed(self._asked.part), **self._size(), **self._scores()}

    def _next(self, asked: Thinning) -> PruneHeads | PruneNeurons | DropLayers:
        """The switch that takes one step of the whole from what is left."""
        left = _UNITS[asked.part](self._subject)
        if asked.part == "layers":
            return DropLayers.read({"by": asked.by, "count": max(1, round(asked.step * self._whole))})
        of = sum(left) if asked.scope == "global" else max(left)
        least = 1 if asked.scope == "global" else len(left)  # units that one step must take to take any
        ratio = min(0.999, max(asked.step * self._whole, least) / sum(left))
        fields = {"by": asked.by, "scope": asked.scope, "ratio": max(ratio, 1 / of)}
        if asked.part == "neurons":
            return PruneNeurons.read(fields)
        return PruneHeads.read(fields | {"keep": self._last_groups()})

    def _last_groups(self) -> str:
        """The heads of layers that are down to one KV head of several: they go together or not at all."""
        if self._subject.facts.kv_heads == 1:
            return ""
        blocks = attentions(self._subject.model, PruneHeads.kind)
        widths = {layer: head_widths(block) for layer, block in enumerate(blocks)}
        return write_heads({layer: range(heads) for layer, (heads, kv) in widths.items() if kv == 1})

    def _follow(self, part: str) -> None:
        """Keep count of what is left, by the numbers that it had at first."""
        if part == "heads":
            kept = self._subject.notes[PruneHeads.kind]["kept"]
            self._alive = [[own[unit] for unit in left] for own, left in zip(self._alive, kept, strict=True)]
        if part == "layers":
            dropped = set(self._subject.notes[DropLayers.kind]["dropped"])
            self._layers = [layer for place, layer in enumerate(self._layers) if place not in dropped]

    def _removed(self, part: str) -> str:
        """What is gone, as a recipe names it; '' for neurons, which no recipe names."""
        facts = self._subject.facts
        if part == "layers":
            return write_layers(set(range(self._whole)) - set(self._layers))
        if part == "heads":
            units = range(facts.kv_heads if facts.kv_heads > 1 else facts.heads)
            return write_heads({layer: set(units) - set(own) for layer, own in enumerate(self._alive)})
        return ""

    def _size(self) -> dict[str, Any]:
        return {"parameters": module_parameters(self._subject.model), "bytes": weight_bytes(self._subject.model)}

    def _scores(self) -> dict[str, float]:
        """KLD in nats, top-1 agreement, and perplexity as times that of the model before the first step."""
        logits = self._logits()
        sums = {"kld": 0.0, "top1": 0.0, "delta_logp": 0.0}
        for start in range(0, len(self._base), ROWS):
            rows = slice(start, start + ROWS)
            for name, values in compare(self._base[rows], logits[rows], self._ids[1:][rows]).items():
                if name in sums:
                    sums[name] += sum(values)
        means = {name: total / len(self._base) for name, total in sums.items()}
        return {"kld": means["kld"], "top1": means["top1"], "perplexity_ratio": exp(min(60.0, -means["delta_logp"]))}

    @torch.inference_mode()
    def _logits(self) -> Tensor:
        """Logits (T, V) of the text in one call, on the CPU."""
        inputs = torch.tensor([self._ids], device=self._subject.device)
        return self._subject.model(input_ids=inputs, use_cache=False).logits[0, :-1].cpu()


_UNITS: dict[str, Callable[[Subject], list[int]]] = {
    "heads": lambda subject: [part_of(block).units for block in attentions(subject.model, PruneHeads.kind)],
    "neurons": lambda subject: [block.down_proj.in_features for block in mlps(subject.model, PruneNeurons.kind)],
    "layers": lambda subject: [1] * len(stack(subject.model, DropLayers.kind)),
}
