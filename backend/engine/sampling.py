"""How the next token is chosen: the most likely one, or one drawn after temperature, top-k, top-p and min-p."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from backend.recipe.race import Sampling

Paths = Sequence[Sequence[int]]  # for each row of logits, the tokens between the text so far and that row


class Sampler:
    """Chooses tokens as `Sampling` asks; equal seeds choose equally. `generator` is None when greedy.

    A repetition penalty depends on the text: `follow` tells the text so far, `note` what is added to it. Rows of
    logits after guesses are given with their paths, so that each guess counts for the rows behind it.
    """

    def __init__(self, sampling: Sampling, seed: int, device: torch.device) -> None:
        self.greedy = sampling.temperature == 0
        self.generator = None if self.greedy else torch.Generator(device=device).manual_seed(seed)
        self._warpers = [] if self.greedy else _warpers(sampling)
        self._penalty = sampling.repetition_penalty
        self._text: list[int] = []
        self._marked = 0  # tokens of the text that the mask knows
        self._mask: Tensor | None = None  # (V,) bool: which tokens the text holds

    def follow(self, ids: Sequence[int]) -> None:
        """Begin after a text, the prompt included, as the library's penalty does."""
        self._text, self._marked, self._mask = list(ids), 0, None

    def note(self, tokens: Sequence[int]) -> None:
        """Hear what was added to the text."""
        self._text += tokens

    def scores(self, logits: Tensor, paths: Paths | None = None) -> Tensor:
        """Raw logits (..., V) with the repetition penalty; the same tensor where there is none.

        Keskar et al. 2019 (CTRL), section 4.1, as the library does it: each token of the text once, divided where it
        is positive and multiplied where it is negative.
        """
        if self._penalty == 1:
            return logits
        rows = logits.reshape(-1, logits.shape[-1]).float()  # (n, V)
        seen = self._seen(rows.shape[-1], rows.device).expand_as(rows)
        if paths is not None and any(paths):
            seen = seen.clone()
            for row, path in enumerate(paths):
                seen[row, list(path)] = True
        less = torch.where(rows < 0, rows * self._penalty, rows / self._penalty)
        return torch.where(seen, less, rows).view(logits.shape)

    def warp(self, logits: Tensor, paths: Paths | None = None) -> Tensor:
        """Turn raw logits (..., V) into the probabilities (..., V), float32, from which a token is drawn.

        The order in which `generate` has them: repetition penalty, then temperature, top-k, top-p and min-p by the
        library's own processors. Greedy gives all probability to the most likely token.
        """
        scores = self.scores(logits, paths)
        if self.greedy:
            best = scores.argmax(-1, keepdim=True)
            return torch.zeros_like(scores, dtype=torch.float32).scatter_(-1, best, 1.0)
        scores = scores.reshape(-1, logits.shape[-1]).float()  # the processors want (N, V)
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
        return int(self.scores(logits).argmax()) if self.greedy else self.pick(self.warp(logits))

    def draw(self, logits: Tensor, after: Sequence[Tensor] = (), count: int = 1) -> tuple[Tensor, Tensor | None]:
        """Choose `count` different tokens (1, count) from raw logits (1, V), and the row (1, V) they were drawn from.

        Greedy takes the likeliest, best first, and has no row. Drawing is without replacement, one after the other.

        Args:
            after: tokens (1, 1) each that were guessed since the text so far.
        """
        paths = [torch.cat(list(after), 1)[0].tolist()] if after and self._penalty != 1 else None
        if self.greedy:
            scores = self.scores(logits, paths)
            return (scores.argmax(-1, keepdim=True) if count == 1 else scores.topk(count).indices), None
        row = self.warp(logits, paths)
        # Without replacement the library orders tokens by p / Exp(1), which is the order of drawing one by one.
        return torch.multinomial(row, count, generator=self.generator), row

    def uniform(self, count: int, device: torch.device) -> Tensor:
        """Draw `count` numbers from 0 (included) to 1 (excluded)."""
        return torch.rand(count, generator=self.generator, device=device)

    def _seen(self, vocab: int, device: torch.device) -> Tensor:
        if self._mask is None:
            self._mask = torch.zeros(vocab, dtype=torch.bool, device=device)
        if fresh := self._text[self._marked :]:
            self._mask[torch.tensor(fresh, device=device)] = True
            self._marked = len(self._text)
        return self._mask


def _warpers(sampling: Sampling) -> list[LogitsProcessor]:
    """The library's processors that change anything."""
    warpers: list[LogitsProcessor] = []
    if sampling.temperature != 1:
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers
