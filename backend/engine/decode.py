"""The decode loop: prefill, then one token a step, or several where a proposer guesses and the model verifies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from backend.engine.sampling import Sampler
from backend.engine.speculate import Judged, Speculation, judge
from backend.recipe.race import Sampling
from backend.techniques.base import Subject, cache_bytes
from backend.techniques.guess import Guess, Proposer
from backend.techniques.tree import keep_path, tree_inputs

NOTHING = Guess([])


@dataclass(frozen=True, slots=True)
class Emission:
    """One token as it left the decoder."""

    token: int
    drafted: bool  # a proposer guessed it and the model accepted it
    logits: Tensor  # (V,) the model's raw logits at this place, before any temperature


class Decoder:
    """Decodes one request at a time at batch 1. Between calls the cache holds every token of `ids` but the last.

    `start` begins a new request with an empty cache, the seed and the counts of speculation anew, so equal requests
    give equal tokens. Steps read token ids on the host: when they return, an asynchronous device has been waited for.
    """

    def __init__(self, subject: Subject, sampling: Sampling, seed: int) -> None:
        self.ids: list[int] = []
        self.cache: Cache = DynamicCache(config=subject.model.config)
        self.speculation: Speculation | None = None
        self._subject = subject
        self._sampling = sampling
        self._seed = seed
        self._sampler = Sampler(sampling, seed, subject.device)
        self._proposer: Proposer | None = subject.plan.proposer
        self._forward = subject.plan.forward or subject.model  # of one-token steps
        self._end = 0  # length of `ids` when all room is used
        self._last = torch.zeros((1, 1), dtype=torch.long, device=subject.device)  # the token that is fed next
        # A captured CUDA graph writes each step's logits over those of the step before.
        self._copies = subject.plan.forward is not None and subject.device.type == "cuda"

    @torch.inference_mode()
    def start(self, ids: list[int], room: int) -> Emission:
        """Read the prompt in one call and choose the first token.

        Args:
            ids: the prompt's tokens, at least one.
            room: how many tokens will follow at most, the first one included. A round of guesses never goes past it.
        """
        margin = self._proposer.width if self._proposer else 0
        make = self._subject.plan.make_cache
        total = len(ids) + room + margin
        self.cache = make(total) if make else DynamicCache(config=self._subject.model.config)
        self.ids = list(ids)
        self._end = len(ids) + room
        self._sampler = Sampler(self._sampling, self._seed, self._subject.device)
        self._sampler.follow(ids)
        if self._proposer:
            self.speculation = Speculation(self._proposer.source)
            self.cache.activate_past_recording()  # so that sliding layers can be cropped past their window
            self._proposer.start(self.ids, self.cache)
        logits = self._call(self._subject.model, torch.tensor([ids], device=self._subject.device), 1)[-1]
        if self._proposer:
            self.cache.crop(0)
        return self._emit(logits)

    @torch.inference_mode()
    def step(self) -> list[Emission]:
        """One round: one token, or one to `width` + 1 of them with a proposer."""
        if self._proposer and self.speculation:
            return self._round(self._proposer, self.speculation)
        return [self._emit(self._one())]

    @property
    def kv_bytes(self) -> int:
        """Bytes that the cache's tensors hold, each storage once; a static cache counts all that it took."""
        return cache_bytes(self.cache)

    def _call(self, forward: Any, ids: Tensor, keep: int, **tree: Any) -> Tensor:
        """Raw logits (keep, V) after the last tokens of `ids` (1, T)."""
        logits: Tensor = forward(input_ids=ids, cache=self.cache, use_cache=True, logits_to_keep=keep, **tree).logits
        return logits[0]

    def _one(self) -> Tensor:
        """Raw logits (V,) that follow the last token."""
        logits = self._call(self._forward, self._last.fill_(self.ids[-1]), 1)[0]
        return logits.clone() if self._copies else logits

    def _emit(self, logits: Tensor) -> Emission:
        token = self._sampler.choose(logits)
        self._add([token])
        return Emission(token, False, logits)

    def _add(self, tokens: list[int]) -> None:
        self.ids += tokens
        self._sampler.note(tokens)

    def _round(self, proposer: Proposer, counts: Speculation) -> list[Emission]:
        started = time.perf_counter()
        guess = self._guess(proposer)
        guessed = time.perf_counter()
        counts.draft_s += guessed - started
        if not guess.tokens:
            emission = self._emit(self._one())
            self.cache.crop(0)  # recording layers keep all that they saw until they are cropped
            spent = time.perf_counter() - guessed
            counts.plain_rounds += 1
            counts.plain_s += spent
            if proposer.pace:
                proposer.pace.note_plain(spent, guessed - started)
            return [emission]
        emitted, judged = self._verify(guess)
        verified = time.perf_counter()
        counts.verify_s += verified - guessed
        proposer.accepted(judged.path)
        told = time.perf_counter()
        counts.draft_s += told - verified
        depth, accepted = guess.depth, len(judged.path)
        counts.record(len(guess.tokens), accepted, depth, judged.tried)
        if proposer.pace:
            draft_s = guessed - started + told - verified
            proposer.pace.note_round(draft_s, verified - guessed, depth, accepted, judged.tried)
        return emitted

    def _guess(self, proposer: Proposer) -> Guess:
        """The proposer's guess; no round goes past the room that was asked for."""
        most = min(proposer.depth, self._end - len(self.ids) - 1)  # the model's own token comes on top
        if most > 0 and proposer.pace:
            most = proposer.pace.choose(most)
        return proposer.propose(self.ids, self._sampler, most) if most > 0 else NOTHING

    def _verify(self, guess: Guess) -> tuple[list[Emission], Judged]:
        """Feed the last token and the guesses in one call, keep what stands, and crop the cache to it."""
        fed = torch.tensor([[self.ids[-1], *guess.tokens]], device=self._subject.device)  # (1, n + 1)
        model, count = self._subject.model, fed.shape[1]
        tree = {} if guess.parents is None else tree_inputs(model, self.cache, guess.parents)
        logits = self._call(model, fed, count, **tree)  # (n + 1, V)
        judged = judge(logits, guess, self._sampler)
        accepted = len(judged.path)
        keep_path(self.cache, count, judged.rows)
        self.cache.crop(accepted - len(guess.tokens))
        self._add(judged.tokens)
        pairs = zip(judged.tokens, judged.rows, strict=True)
        return [Emission(token, place < accepted, logits[row]) for place, (token, row) in enumerate(pairs)], judged
