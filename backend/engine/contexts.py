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
from backend.metrics import mean_interval
from backend.recipe.base import RecipeError
from backend.recipe.contexts import SHORTEST, ContextSweep
from backend.recipe.recipe import Recipe
from backend.techniques.base import DecodePlan, Subject, cache_bytes
from backend.techniques.registry import apply_switch

READ = 256  # tokens that are read in a call, between two lengths
SCORES = ("kld", "top1", "delta_logp")


class Contexts:
    """Sweeps one lane's model over the lengths of a text."""

    def __init__(self, subject: Subject, held_out: list[int], meter: MemoryMeter) -> None:
        self._subject, self._held_out, self._meter = subject, held_out, meter
        self._asked: ContextSweep | None = None
        self._caches: list[Cache] = []  # the full one first, then those that are scored
        self._read = 0  # tokens of the text that all of them have seen
        self._pending: list[Tensor] = []  # (V,) of each cache: what follows

    def context_start(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The lengths that this model and its text have, at most as long as asked for; empty caches.

        Raises:
            RecipeError: for random weights, a text that is too short, or a cache that this model cannot have.
        """
        subject, self._asked = self._subject, ContextSweep.read(asked)
        if self._asked.ask == "quality" and subject.facts.random_weights:
            raise RecipeError("model", subject.facts.name, "a model with weights of its own", "Choose one.")
        lengths = lengths_of(min(self._asked.longest, subject.facts.context, len(self._held_out)))
        if not lengths:
            value, allowed = f"{subject.facts.context} tokens of context", f"at least {SHORTEST}"
            raise RecipeError("model", value, allowed, "Choose a model with a longer context.")
        if self._asked.ask == "quality":
            total = lengths[-1] + 1
            self._caches = [empty(subject, recipe, total) for recipe in (Recipe(), *self._asked.caches)]
        self._read = 0
        return {"lengths": lengths, "scored": self._asked.scored}

    def context_quality(self, length: int) -> dict[str, Any]:
        """Read on up to `length`, its last tokens one a call; score these in every cache against the full one."""
        if self._asked is None:
            raise RuntimeError("the sweep has not been asked for")
        until = length - self._asked.scored
        while self._read < until:
            self._feed(min(READ, until - self._read))
        scores: list[dict[str, list[float]]] = [{name: [] for name in SCORES} for _ in self._asked.caches]
        losses: list[float] = []  # of the full cache, in nats
        for _ in range(self._asked.scored):
            base = torch.log_softmax(self._pending[0].float(), dim=-1)[None]
            token = self._held_out[self._read]
            losses.append(-float(base[0, token]))
            for found, logits in zip(scores, self._pending[1:], strict=True):
                row = compare(base, logits[None], [token])
                for name, values in found.items():
                    values += row[name]
            self._feed(1)
        loss = sum(losses) / len(losses)
        told = [_told(found, loss, cache) for found, cache in zip(scores, self._caches[1:], strict=True)]
        return {"length": length, "loss": loss, "kv_bytes": cache_bytes(self._caches[0]), "caches": told}

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
    def _feed(self, count: int) -> None:
        """Read so many tokens on, in every cache."""
        ids = torch.tensor([self._held_out[self._read : self._read + count]], device=self._subject.device)
        self._pending = [
            self._subject.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1).logits[0, -1].cpu()
            for cache in self._caches
        ]
        self._read += count


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
