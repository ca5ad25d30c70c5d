"""The batched engine: many requests share one model, a step at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from backend.engine.batch.attend import NAME, Row, Span
from backend.engine.batch.fit import check_fit
from backend.engine.batch.prefixes import PrefixStore
from backend.engine.batch.slots import Saved, SlotCache, stack_positions
from backend.engine.sampling import Sampler
from backend.recipe.base import RecipeError
from backend.recipe.race import Sampling
from backend.recipe.serving import Limits
from backend.serving.plan import Feed, Plan
from backend.serving.request import Request
from backend.serving.scheduler import Scheduler
from backend.techniques.base import Subject

ROOM = 256  # tokens of a slot at first; it is widened when a longer request comes
Finished = Literal["length", "stop", "cancelled"] | None


@dataclass(frozen=True)
class Progress:
    """What one step gave one request: a token, its end, or both; `logits` (V,) are the model's own, before sampling."""

    id: int
    token: int | None
    finished: Finished
    logits: Tensor | None = None
    cached: int = 0  # tokens of the prompt that were copied when it was first read


@dataclass
class _Live:
    """A request's tokens so far, and who chooses the next."""

    request: Request
    ids: list[int]
    sampler: Sampler
    cached: int | None = None  # tokens of the prompt that were copied when it was first read; None before that


class BatchEngine:
    """Decodes many requests at once; each gets the tokens that it would get alone.

    Alone and together logits differ in their last digits, as with speculation (see engine/speculate.py), and more for a
    model whose output depends on the shape of the call. Not to be shared between threads.
    """

    def __init__(self, subject: Subject, limits: Limits) -> None:
        """Take a model that is ready.

        Raises:
            RecipeError: when its recipe or its architecture cannot serve many requests at once.
        """
        check_fit(subject)
        self._subject = subject
        self._config = subject.model.config.get_text_config(decoder=True)
        longest = subject.longest or subject.facts.context
        blocks = limits.blocks or limits.slots * -(-longest // limits.block_tokens)
        self.scheduler = Scheduler(limits, blocks)
        self.cache = SlotCache(limits.slots, min(ROOM, subject.facts.context))
        self.prefixes = PrefixStore(limits.prefix_blocks, limits.block_tokens)
        self.step_s = 0.0  # of the last step
        self.plan = Plan()  # the last step's
        self._live: dict[int, _Live] = {}
        self._saved: dict[int, Saved] = {}
        self._cancelled: list[int] = []

    # From outside

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            RecipeError: for one that could never be served.
        """
        self._check(request)
        self.scheduler.add(request)
        sampler = Sampler(request.sampling or Sampling(), request.seed, self._subject.device)
        self._live[request.id] = _Live(request, list(request.prompt), sampler)

    def _check(self, request: Request) -> None:
        facts, remedy = self._subject.facts, "Shorten the prompt or ask for fewer tokens."
        if not request.prompt or request.max_new_tokens < 1:
            given = f"{len(request.prompt)} tokens and {request.max_new_tokens} to write"
            raise RecipeError("request", given, "one token of each at least", "Give a prompt and ask for tokens.")
        if request.total > facts.context:
            given = f"{len(request.prompt)} tokens and {request.max_new_tokens} to write"
            raise RecipeError("request", given, f"at most {facts.context} tokens together, the context", remedy)
        if not 0 <= min(request.prompt) <= max(request.prompt) < facts.vocab:
            given = f"tokens {min(request.prompt)} to {max(request.prompt)}"
            raise RecipeError("request.prompt", given, f"tokens 0 to {facts.vocab - 1}", "Use the model's tokenizer.")

    def cancel(self, id: int) -> None:
        """Give up a request; the next step reports it as cancelled. An unknown or ended one is left alone."""
        if self.scheduler.cancel(id) is None:
            return
        self._forget()
        self._drop(id)
        self._cancelled.append(id)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do or to report."""
        return not (self._live or self._cancelled)

    def stats(self) -> dict[str, Any]:
        """Plain data: how many wait and run, the last step's batch, and the KV memory in blocks."""
        line = self.scheduler
        prefixes = line.prefixes
        told: dict[str, Any] = {
            "queue": len(line.waiting),
            "running": len(line.running),
            "batch": sum(not feed.ghost for feed in self.plan.feeds),
            "blocks_used": line.blocks.used,
            "blocks_total": line.blocks.total,
            "preemptions": line.preemptions,
            "kv_bytes_per_token": self.cache.bytes_per_token,
        }
        if prefixes.room:
            told |= {
                "prefix_blocks_used": prefixes.used,
                "prefix_asked_tokens": prefixes.asked_tokens,
                "prefix_reused_tokens": prefixes.reused_tokens,
                "prefix_hit_rate": prefixes.hit_rate,
            }
        return told

    # A step

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """Read chunks of prompts and write a token for each request that is being written, in one call."""
        started = time.perf_counter()
        done = [Progress(id, None, "cancelled") for id in self._cancelled]
        self._cancelled = []
        self.plan = plan = self.scheduler.plan()
        self._move(plan)
        if plan.feeds:
            done += self._run(plan)
            self.step_s = time.perf_counter() - started
            self.scheduler.pace.hear(plan.tokens, self.step_s)
        return done

    def _move(self, plan: Plan) -> None:
        for move in plan.leaves:
            if move.swap:
                self._saved[move.id] = self.cache.save(move.slot, move.tokens)
        self._forget()
        for move in plan.enters:
            self.cache.widen(self._live[move.id].request.total)
            if move.swap:
                self.cache.load(move.slot, self._saved.pop(move.id))
        for copy in plan.copies:
            self.prefixes.copy(self.cache, copy)
        for feed in plan.feeds:
            self._note_copied(feed)

    def _run(self, plan: Plan) -> list[Progress]:
        feeds = sorted(plan.feeds, key=lambda feed: (feed.count > 1, feed.slot))
        ids = [self._fed(feed) for feed in feeds]
        fed = torch.tensor([[token for part in ids for token in part]], device=self._subject.device)  # (1, N)
        logits = self._call(fed, feeds)  # (E, V), of those that emit
        emitting = [feed for feed in feeds if feed.emits]
        tokens = self._choose(emitting, logits)
        stopped = {id for id, token in tokens.items() if token in self._live[id].request.stop_ids}
        for keep in plan.keeps:
            self.prefixes.keep(self.cache, keep)
        ended = self.scheduler.advance(plan, stopped)
        self._forget()
        rows = zip(tokens.items(), logits, strict=True)
        told = [Progress(id, token, ended.get(id), row, self._live[id].cached or 0) for (id, token), row in rows]
        for id in ended:
            self._drop(id)
        return told

    def _fed(self, feed: Feed) -> list[int]:
        return [0] if feed.ghost else self._live[feed.id].ids[feed.start : feed.start + feed.count]

    def _call(self, fed: Tensor, feeds: list[Feed]) -> Tensor:
        device, spans, at = self._subject.device, [], 0
        for feed in feeds:
            spans.append(Span(feed.slot, at, feed.start, feed.count))
            at += feed.count
        positions = stack_positions([(span.start, span.count) for span in spans], device)
        slots = torch.repeat_interleave(
            torch.tensor([span.slot for span in spans]), torch.tensor([span.count for span in spans])
        ).to(device)
        writing, reading = [s for s in spans if s.count == 1], [s for s in spans if s.count > 1]
        row = Row(self.cache, slots, positions, writing, reading)
        last = [span.at + span.count - 1 for span, feed in zip(spans, feeds, strict=True) if feed.emits]
        keep = torch.tensor(last or [0], device=device)
        with self._attention():
            found = self._subject.model(
                input_ids=fed, position_ids=positions[None], use_cache=False, logits_to_keep=keep, row=row
            )
        logits: Tensor = found.logits[0]
        return logits[: len(last)]

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """The model attends as a batch within the block, and as it did before after it."""
        before = self._config._attn_implementation
        self._config._attn_implementation = NAME
        try:
            yield
        finally:
            self._config._attn_implementation = before

    def _choose(self, emitting: list[Feed], logits: Tensor) -> dict[int, int]:
        """The next token of each; the greedy ones in one go."""
        likeliest = logits.argmax(-1).tolist() if len(emitting) else []
        tokens = {}
        for feed, row, best in zip(emitting, logits, likeliest, strict=True):
            live = self._live[feed.id]
            token = best if live.sampler.greedy else live.sampler.choose(row)
            live.ids.append(token)
            tokens[feed.id] = token
        return tokens

    def _note_copied(self, feed: Feed) -> None:
        """The first time that tokens of a request are fed, those before them were copied."""
        live = self._live.get(feed.id)  # None: a row that has ended
        if live is not None and live.cached is None:
            live.cached = feed.start

    def _forget(self) -> None:
        """Give back the memory of slots that were left."""
        for slot in self.scheduler.left():
            self.cache.forget(slot)

    def _drop(self, id: int) -> None:
        self._live.pop(id, None)
        self._saved.pop(id, None)
