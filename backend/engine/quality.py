"""Quality against the baseline: exact KLD over the whole vocabulary, and loss on held-out text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, DynamicCache

from backend.engine.worst import Row, Worst
from backend.techniques.base import Subject, cache_bytes

TOP = 5
PROMPT_BUDGET_BYTES = 256 * 2**20  # logits of the prompt that a lane may hold for scoring


def compare(base: Tensor, logits: Tensor, tokens: list[int], worst: Worst | None = None) -> dict[str, list[float]]:
    """Score rows of a variant's raw logits against the baseline's log-probabilities.

    Args:
        base: (n, V) float32 log-probabilities of the baseline.
        logits: (n, V) raw logits of the variant at the same places.
        tokens: the n tokens that the scored text has there.
        worst: keeps the places with the highest KLD.
    Returns:
        `kld` KL(base || variant) in nats, `top1` 1 where both rank the same token first, `top5` the share of the
        baseline's five likeliest tokens that are among the variant's five, `delta_logp` the variant's log-probability
        of the token less the baseline's.
    """
    ours = torch.log_softmax(logits.float().cpu(), dim=-1)
    kld = (base.exp() * (base - ours)).sum(-1).clamp_min(0).tolist()  # (n,)
    chosen = torch.tensor(tokens)[:, None]
    ours_of, base_of = ours.gather(1, chosen)[:, 0], base.gather(1, chosen)[:, 0]  # (n,)
    same = base.argmax(-1) == ours.argmax(-1)
    ours_top, base_top = likeliest(ours), likeliest(base)
    shared = (ours_top[1][:, :, None] == base_top[1][:, None, :]).sum((1, 2)) / ours_top[1].shape[1]  # (n,)
    if worst is not None:
        for n, token in enumerate(tokens):
            base_five, ours_five = ((values[n], ids[n]) for values, ids in (base_top, ours_top))
            worst.note(token, Row(kld[n], base_of[n], ours_of[n], base_five, ours_five))
    delta = ours_of - base_of
    return {"kld": kld, "top1": same.int().tolist(), "top5": shared.tolist(), "delta_logp": delta.tolist()}


def likeliest(logps: Tensor) -> tuple[Tensor, Tensor]:
    """The five likeliest tokens of each row of (n, V): log-probabilities and tokens, (n, 5) each, the best first."""
    values, tokens = logps.topk(min(TOP, logps.shape[-1]))
    return values, tokens


class Shadow:
    """Teacher-forced scoring of the baseline's tokens in a second KV cache, in the call shapes of the variant.

    `width` is how many tokens a call holds in decoding: 1, or 1 + guesses where a proposer is verified.
    """

    def __init__(self, subject: Subject, prompt: list[int], room: int) -> None:
        self._subject = subject
        proposer = subject.plan.proposer
        self._width = 1 + proposer.width if proposer else 1
        make = subject.plan.make_cache
        total = len(prompt) + room + self._width
        self.cache: Cache = make(total) if make else DynamicCache(config=subject.model.config)
        self._pending: Tensor | None = self._call(prompt)[-1:]  # (1, V): what follows the prompt

    @property
    def kv_bytes(self) -> int:
        """Bytes of the second cache, which are not the variant's own memory."""
        return cache_bytes(self.cache)

    def score(self, base: Tensor, tokens: list[int], worst: Worst | None = None) -> dict[str, list[float]]:
        """Score the baseline's next tokens; `base` (n, V) are its log-probabilities at their places."""
        scores: dict[str, list[float]] = {"kld": [], "top1": [], "top5": [], "delta_logp": []}
        for start in range(0, len(tokens), self._width):
            part = tokens[start : start + self._width]
            # A call on `part` gives what follows each of its tokens; what its first token should be stands pending.
            fed = self._call(part)
            logits = torch.cat([self._pending, fed[:-1]]) if self._pending is not None else fed
            self._pending = fed[-1:]
            for key, values in compare(base[start : start + len(part)], logits, part, worst).items():
                scores[key] += values
        return scores

    @torch.inference_mode()
    def _call(self, ids: list[int]) -> Tensor:
        """Logits (T, V) for a decode-shaped call, (1, V) for the prompt."""
        device, plan = self._subject.device, self._subject.plan
        first = self.cache.get_seq_length() == 0
        forward = plan.forward if plan.forward and len(ids) == 1 and not first else self._subject.model
        inputs = torch.tensor([ids], device=device)
        keep = 1 if first else 0
        return forward(input_ids=inputs, cache=self.cache, use_cache=True, logits_to_keep=keep).logits[0]


def prompt_rows(prompt_tokens: int, vocab: int) -> int:
    """How many of the prompt's last places are scored: all, or as many as fit into the budget."""
    return max(1, min(prompt_tokens - 1, PROMPT_BUDGET_BYTES // (4 * vocab)))


@torch.inference_mode()
def prompt_logits(subject: Subject, prompt: list[int]) -> Tensor:
    """Logits (n, V) at the prompt's last places, computed in one call of the prompt's shape as prefill is."""
    rows = prompt_rows(len(prompt), subject.facts.vocab)
    inputs = torch.tensor([prompt], device=subject.device)
    return subject.model(input_ids=inputs, use_cache=False, logits_to_keep=rows + 1).logits[0, :-1]


WINDOW = 256


def windows(ids: list[int], tokens: int, opening: Sequence[int] = ()) -> Iterator[list[int]]:
    """Windows of 256 tokens, one after the other, until `tokens` are covered; each begins as texts of the model do."""
    text = ids[len(opening) :] if ids[: len(opening)] == [*opening] else ids
    step = WINDOW - len(opening)
    for start in range(0, min(tokens, len(text)) - step + 1, step):
        yield [*opening, *text[start : start + step]]


@torch.inference_mode()
def window_loss(subject: Subject, ids: list[int]) -> tuple[float, int]:
    """Sum of the negative log-likelihoods in nats of a window's tokens after the first, and their number."""
    inputs = torch.tensor([ids], device=subject.device)
    logits = subject.model(input_ids=inputs, use_cache=False).logits[0, :-1]  # (T - 1, V)
    parts = zip(logits.split(64), inputs[0, 1:].split(64), strict=True)  # 64 rows at a time: no second (T, V)
    total = sum(F.cross_entropy(rows.float(), targets, reduction="sum").item() for rows, targets in parts)
    return float(total), len(ids) - 1


@torch.inference_mode()
def first_choice(subject: Subject, ids: list[int]) -> int:
    """The most likely next token."""
    inputs = torch.tensor([ids], device=subject.device)
    return int(subject.model(input_ids=inputs, use_cache=False, logits_to_keep=1).logits[0, -1].argmax())


@torch.inference_mode()
def finds(subject: Subject, ids: list[int], wanted: list[int]) -> bool:
    """Whether the model, choosing the most likely token each time, goes on from `ids` with all tokens of `wanted`.

    One call over both: each of the wanted tokens is judged after those before it, as greedy decoding would.
    """
    inputs = torch.tensor([ids + wanted[:-1]], device=subject.device)
    logits = subject.model(input_ids=inputs, use_cache=False, logits_to_keep=len(wanted)).logits[0]  # (n, V)
    return bool(logits.argmax(-1).tolist() == wanted)


def protocol(source: str, tokens: int) -> dict[str, Any]:
    """The protocol that stands beside every perplexity: context length, stride, tokens and text."""
    return {"context": WINDOW, "stride": WINDOW, "tokens": tokens, "source": source, "call": "whole window"}
