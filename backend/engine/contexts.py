"""The context sweep of a lane: caches scored side by side as a text gets longer, and steps timed at each length.

Its methods are verbs of the lane; what it does is off every clock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from backend.engine.breakdown import ROOM, decode_parts, plain_step_s
from backend.engine.memory import MemoryMeter, give_back
from backend.engine.quality import compare
from backend.engine.recorded import at_once, fill, record_of
from backend.metrics import mean_interval
from backend.recipe.base import RecipeError
from backend.recipe.contexts import SHORTEST, ContextSweep
from backend.recipe.recipe import Recipe
from backend.techniques.base import DecodePlan, Subject, cache_bytes
from backend.techniques.cache.attend import attention_layers
from backend.techniques.registry import apply_switch

READ = 256  # tokens that are read in a call, between two lengths
ROWS = 32  # tokens that are scored in a call, at most: of each there are logits over the whole vocabulary
SCORES = ("kld", "top1", "delta_logp")


class Contexts:
    """Sweeps one lane's model over the lengths of a text."""

    def __init__(self, subject: Subject, held_out: list[int], meter: MemoryMeter) -> None:
        self._subject, self._held_out, self._meter = subject, held_out, meter
        self._asked: ContextSweep | None = None
        self.record: Cache = DynamicCache()  # of the text so far
        self._read = 0  # tokens of it

    def context_start(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The lengths that this model and its text have, at most as long as asked for.

        Raises:
            RecipeError: for random weights, a text that is too short, or a cache that this model cannot have.
        """
        subject, self._asked = self._subject, ContextSweep.read(asked)
        if self._asked.ask == "quality" and subject.facts.random_weights:
            raise RecipeError("model", subject.facts.name, "a model with weights of its own", "Choose one.")
        lengths = lengths_of(min(self._asked.longest, subject.facts.context, len(self._held_out) - 1))
        if not lengths:
            value, allowed = f"{subject.facts.context} tokens of context", f"at least {SHORTEST}"
            raise RecipeError("model", value, allowed, "Choose a model with a longer context.")
        if self._asked.ask == "quality":
            attention_layers(subject.model, "caches")
            for recipe in self._asked.caches:
                empty(subject, recipe, lengths[-1] + 1)
        self.record, self._read = record_of(subject.model), 0
        return {"lengths": lengths, "scored": self._asked.scored}

    def context_quality(self, length: int) -> dict[str, Any]:
        """Score each cache against the full one after a prompt: the `scored` last tokens of the length are decoded.

        Which tokens come is given, and several pass in one call where each sees what it would see alone. The prompt is
        read once for all: in its one call every cache shows its tokens in full, and keeps them in its own way.
        """
        if self._asked is None:
            raise RuntimeError("the sweep has not been asked for")
        scored = self._asked.scored
        self._read_until(length - scored)
        tail = self._held_out[length - scored : length + 1]
        full = self._prompted(Recipe(), length)
        base = torch.log_softmax(self._decode(full, tail[:-1]), dim=-1)  # (scored, V)
        loss = -float(base[torch.arange(scored), torch.tensor(tail[1:])].mean())  # nats
        told = []
        for recipe in self._asked.caches:
            cache = self._prompted(recipe, length)
            logits = self._decode(cache, tail[:-1])
            told.append(_told(_compared(base, logits, tail[1:]), loss, cache))
        return {"length": length, "loss": loss, "kv_bytes": cache_bytes(full), "caches": told}

    def context_speed(self, length: int) -> dict[str, Any]:
        """Steps after a prompt of `length` tokens: seconds, by part where they can be told apart, and memory."""
        subject = self._subject
        room = min(length - 1, max(0, length + ROOM - subject.facts.context))  # the steps need places too
        prompt = self._held_out[: length - room]
        give_back()
        self._meter.start_peak()
        told: dict[str, Any] = {"length": length, "prompt_tokens": len(prompt)}
        if subject.device.type == "cpu":
            found = decode_parts(subject, prompt)
            told |= {name: found[name] for name in ("parts", "linear", "step_s", "kv_bytes")}
        else:
            told |= {"parts": {}, "linear": {}, "step_s": plain_step_s(subject, prompt), "kv_bytes": None}
        return told | {"peak_bytes": self._meter.peak_bytes}

    @torch.inference_mode()
    def _read_until(self, tokens: int) -> None:
        """Read the text on into the record."""
        while self._read < tokens:
            part = self._held_out[self._read : min(self._read + READ, tokens)]
            ids = torch.tensor([part], device=self._subject.device)
            self._subject.model(input_ids=ids, cache=self.record, use_cache=True, logits_to_keep=1)
            self._read += len(part)

    def _prompted(self, recipe: Recipe, length: int) -> Cache:
        """A cache of this kind as the text so far leaves it when it is read as a prompt."""
        return fill(empty(self._subject, recipe, length + 1), self.record, self._read)

    @torch.inference_mode()
    def _decode(self, cache: Cache, tokens: list[int]) -> Tensor:
        """Logits (T, V) after each of the tokens, as if they had been decoded one by one."""
        rows: list[Tensor] = []
        done = 0
        while done < len(tokens):
            part = tokens[done : done + at_once(cache, ROWS)]
            ids = torch.tensor([part], device=self._subject.device)
            rows.append(self._subject.model(input_ids=ids, cache=cache, use_cache=True).logits[0].float().cpu())
            done += len(part)
        return torch.cat(rows)


def lengths_of(longest: int) -> list[int]:
    """128, 256, 512, ... up to `longest`, which is the last one itself where it lies well above the one before."""
    lengths = []
    length = SHORTEST
    while length <= longest:
        lengths.append(length)
        length *= 2
    return [*lengths, longest] if lengths and longest >= 1.25 * lengths[-1] else lengths


def empty(subject: Subject, recipe: Recipe, total: int) -> Cache:
    """An empty cache as the recipe's switches make it for this model."""
    other = replace(subject, plan=DecodePlan())
    for switch in recipe.pipeline:
        if reason := switch.unfit(subject.facts):
            raise RecipeError(f"caches.{switch.kind}", switch.label, reason, "Change it or leave it out.")
        apply_switch(other, switch)
    make = other.plan.make_cache
    return make(total) if make else DynamicCache(config=subject.model.config)


def _told(found: dict[str, list[float]], loss: float, cache: Cache) -> dict[str, Any]:
    """Mean KLD in nats with its 95% interval over tokens, top-1 agreement, loss in nats, and what the cache holds.

    `loss` is the full cache's on the same tokens.
    """
    mean, low, high = mean_interval(found["kld"])
    top1 = sum(found["top1"]) / len(found["top1"])
    return {
        "kld": mean,
        "low": max(0.0, low),
        "high": high,
        "most": max(found["kld"]),
        "top1": top1,
        "loss": loss - sum(found["delta_logp"]) / len(found["delta_logp"]),
        "kv_bytes": cache_bytes(cache),
    }


def _compared(base: Tensor, logits: Tensor, tokens: list[int]) -> dict[str, list[float]]:
    """Row by row, so that a large vocabulary's probabilities are held for a few tokens only."""
    found: dict[str, list[float]] = {name: [] for name in SCORES}
    for start in range(0, len(tokens), ROWS // 4):
        part = slice(start, start + ROWS // 4)
        scores = compare(base[part], logits[part], tokens[part])
        for name, values in found.items():
            values += scores[name]
    return found
