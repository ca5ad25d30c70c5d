"""Encoding: a batch of sentences to one unit vector each, made of the last hidden states."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.recipe.base import RecipeError
from backend.techniques.base import Subject

MOST_TOKENS = 256  # of one sentence: what MiniLM and its like were trained to take


@dataclass(frozen=True)
class Batch:
    """Token ids and mask (B, T) on the lane's device, the shorter sentences filled up."""

    ids: Tensor
    mask: Tensor

    @property
    def tokens(self) -> int:
        """Real tokens, those of filling left out."""
        return int(self.mask.sum())


def most_tokens(subject: Subject) -> int:
    """The longest sentence that is read; what is beyond is cut off, as sentence encoders do."""
    limit = getattr(subject.tokenizer, "model_max_length", MOST_TOKENS)
    return min(MOST_TOKENS, subject.facts.context - 2, int(limit))


def make_batch(subject: Subject, sentences: Sequence[str]) -> Batch:
    """Tokenize. A shape has no tokenizer: each byte of a text becomes one token, modulo the vocabulary.

    Raises:
        RecipeError: when the tokenizer knows tokens that the model has no embedding for.
    """
    rows = [_ids(subject, sentence) for sentence in sentences]
    width = max(len(row) for row in rows)
    filling = getattr(subject.tokenizer, "pad_token_id", None) or 0
    ids = torch.full((len(rows), width), filling)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return Batch(ids.to(subject.device), mask.to(subject.device))


def _ids(subject: Subject, sentence: str) -> list[int]:
    vocab, most = subject.facts.vocab, most_tokens(subject)
    if subject.tokenizer is None:
        return [byte % vocab for byte in sentence.encode("utf-8")][:most]
    ids: list[int] = subject.tokenizer.encode(sentence, truncation=True, max_length=most)
    if max(ids, default=0) >= vocab:
        remedy = "Tokenizer and weights are of two models: get both again."
        raise RecipeError("model", f"token {max(ids)}", f"tokens below the model's vocabulary of {vocab}", remedy)
    return ids or [0]


@torch.inference_mode()
def embed(subject: Subject, batch: Batch) -> Tensor:
    """Unit vectors (B, H), float32 on the host, pooled as the model was trained to be.

    Mean pooling under the mask and L2 normalisation: Reimers and Gurevych 2019 (Sentence-BERT), section 3.
    """
    hidden = subject.model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    return pooled(subject, hidden, batch.mask).cpu()


def pooled(subject: Subject, hidden: Tensor, mask: Tensor) -> Tensor:
    """Unit vectors (B, H) of hidden states (B, T, H), in float32; filling, where the mask (B, T) is 0, has no part."""
    hidden = hidden.float()
    if subject.pooling == "first":
        return F.normalize(hidden[:, 0], dim=1)
    weights = mask[:, :, None].float()
    mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)
    return F.normalize(mean, dim=1)


def embed_all(subject: Subject, sentences: Sequence[str], size: int) -> np.ndarray:
    """Vectors (N, H) of all sentences, in calls of `size`, in their order."""
    parts = [embed(subject, make_batch(subject, group)) for group in groups(sentences, size)]
    return torch.cat(parts).numpy()


def groups(sentences: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Sentences in groups of `size`, the last one perhaps smaller."""
    for start in range(0, len(sentences), size):
        yield sentences[start : start + size]


def timed(subject: Subject, batches: Sequence[Batch]) -> list[float]:
    """Seconds of every call, from token ids on the device to vectors on the host. Tokenizing is no part of it."""
    spent = []
    for batch in batches:
        started = time.perf_counter()
        embed(subject, batch)  # the result is read on the host, so an asynchronous device has been waited for
        spent.append(time.perf_counter() - started)
    return spent
