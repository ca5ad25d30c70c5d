"""How the next token is chosen: the most likely one, or one drawn after temperature, top-k and top-p."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from backend.recipe.race import Sampling


class Sampler:
    """Chooses tokens as `Sampling` asks; equal seeds choose equally. `generator` is None when greedy."""

    def __init__(self, sampling: Sampling, seed: int, device: torch.device) -> None:
        self.greedy = sampling.temperature == 0
        self.generator = None if self.greedy else torch.Generator(device=device).manual_seed(seed)
        self._warpers = [] if self.greedy else _warpers(sampling)

    def warp(self, logits: Tensor) -> Tensor:
        """Turn raw logits (..., V) into the probabilities (..., V), float32, from which a token is drawn.

        The library's own processors in the order in which `generate` uses them: temperature, top-k, top-p. Greedy
        gives all probability to the most likely token.
        """
        if self.greedy:
            best = logits.argmax(-1, keepdim=True)
            return torch.zeros_like(logits, dtype=torch.float32).scatter_(-1, best, 1.0)
        scores = logits.reshape(-1, logits.shape[-1]).float()  # the processors want (N, V)
        for warper in self._warpers:
            scores = warper(None, scores)
        return scores.softmax(-1).view(logits.shape)

    def pick(self, probabilities: Tensor) -> int:
        """Draw one token from probabilities (V,), which need not sum to 1."""
        if self.greedy:
            return int(probabilities.argmax())
        return int(torch.multinomial(probabilities, 1, generator=self.generator))

    def choose(self, logits: Tensor) -> int:
        """Choose one token from raw logits (V,); greedy looks at the logits alone, with no softmax."""
        return int(logits.argmax()) if self.greedy else self.pick(self.warp(logits))

    def uniform(self, count: int, device: torch.device) -> Tensor:
        """Draw `count` numbers from 0 (included) to 1 (excluded)."""
        return torch.rand(count, generator=self.generator, device=device)


def _warpers(sampling: Sampling) -> list[LogitsProcessor]:
    """The library's processors that change anything."""
    warpers: list[LogitsProcessor] = []
    if sampling.temperature != 1:
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers
