"""The scheduler: who waits, who has a slot, and what the next step feeds. It counts tokens and knows no model.

First come, first served: whoever was submitted earlier enters earlier, is fed earlier, and is preempted later. So the
oldest request always goes on, and nobody starves. Continuous batching as in Orca (Yu et al. 2022), chunked prefill
beside decoding as in Sarathi-Serve (Agrawal et al. 2024), blocks and preemption as in vLLM (Kwon et al. 2023).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection
from typing import Literal

from backend.recipe.base import RecipeError
from backend.recipe.serving import Limits
from backend.serving.blocks import Blocks
from backend.serving.pace import Pace
from backend.serving.plan import Copy, Feed, Keep, Move, Plan, Sequence
from backend.serving.prefixes import Prefixes, chain
from backend.serving.request import Request

Ended = Literal["length", "stop"]
LEAST_CHUNK = 8  # tokens: with less a prompt would take longer than any target is worth


class Scheduler:
    """Plans step after step. Each `plan` is to be carried out and answered by `advance` before the next."""

    def __init__(self, limits: Limits, blocks: int) -> None:
        self.limits = limits
        self.blocks = Blocks(blocks, limits.block_tokens)
        self.pace = Pace(limits.tpot_target_s)
        self.prefixes = Prefixes(limits.prefix_blocks, limits.block_tokens)
        self.waiting: list[Sequence] = []  # in order
        self.running: list[Sequence] = []  # in order
        self.ghosts: list[
            Sequence
        ] = []  # rows of a static batch that have ended before it has; they hold what they had
        self.preemptions = 0
        self._free = list(range(limits.slots - 1, -1, -1))  # slots, the lowest last
        self._left: list[int] = []  # slots that somebody has left
        self._orders = 0

    # What comes from outside

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            RecipeError: for one that would not fit if it were alone, or whose number is in use.
        """
        needed = self.blocks.needed(request.total)
        if needed > self.blocks.total:
            held = self.blocks.total * self.blocks.tokens
            allowed = f"at most {held} tokens, the {self.blocks.total} KV blocks that there are"
            remedy = "Shorten the prompt or the answer, or raise the memory limit."
            raise RecipeError("request", f"{request.total} tokens of prompt and answer", allowed, remedy)
        if any(one.request.id == request.id for one in (*self.waiting, *self.running, *self.ghosts)):
            raise RecipeError("request.id", request.id, "a number that no request has that lives", "Take another one.")
        keys = chain(request.prompt, self.blocks.tokens) if self.prefixes.room else []
        self.waiting.append(Sequence(request, self._orders, known=len(request.prompt), keys=keys))
        self._orders += 1

    def cancel(self, id: int) -> Sequence | None:
        """Take a request out at once; it, or None where nobody has this number."""
        for line in (self.waiting, self.running):
            for one in line:
                if one.request.id == id:
                    line.remove(one)
                    self._release(one)
                    self._end_batch()
                    return one
        return None

    def left(self) -> list[int]:
        """Slots that were left since the last time: nobody will read what they hold."""
        told, self._left = self._left, []
        return told

    # A step

    def plan(self) -> Plan:
        """What the next step does; it feeds nothing only when nobody waits or runs."""
        plan = Plan()
        width = self.pace.tokens(most=max(self.limits.slots, self.limits.chunk_tokens) + self.limits.slots)
        self._make_room(plan)
        if not plan.leaves:  # who has just left is not let in again before the older ones have gone on
            self._admit(plan, width)
        self._feed(plan, width)
        self._keep(plan)
        if plan.feeds:
            plan.feeds += [Feed(one.request.id, _slot(one), one.cached - 1, 1, False, True) for one in self.ghosts]
        return plan

    def _make_room(self, plan: Plan) -> None:
        """Blocks for every token that is about to be written; where there are none, the youngest leaves."""
        for one in list(self.running):
            if one not in self.running or one.reading:
                continue
            missing = self.blocks.needed(one.known) - one.blocks
            while missing > 0 and not self.blocks.take(missing):
                victim = self.running[-1]
                if victim is self.running[0] and self.ghosts:
                    self._end_batch(early=True)  # it is the last of its batch, which holds it up
                    continue
                self._preempt(victim, plan)
                if victim is one:
                    missing = 0
            if one.slot is not None:
                one.blocks += max(0, missing)

    def _preempt(self, one: Sequence, plan: Plan) -> None:
        swap = self.limits.preemption == "swap" and one.cached > 0
        plan.leaves.append(Move(one.request.id, _slot(one), one.cached, swap))
        self.running.remove(one)
        self._release(one)
        one.swapped, one.cached = swap, one.cached if swap else 0
        insort(self.waiting, one, key=lambda other: other.order)
        self.preemptions += 1

    def _admit(self, plan: Plan, width: int) -> None:
        """The first of the line, while there are slots and blocks: nobody overtakes one that does not fit yet."""
        if self.limits.batching != "continuous" and self.running:
            return
        while self.waiting and self._free and (not self.running or len(self.running) < width):
            one = self.waiting[0]
            held = one.request.total if self.limits.admission == "reserve" else min(one.known + 1, one.request.total)
            needed = self.blocks.needed(held)
            if not self.blocks.take(needed):
                return
            one.slot, one.blocks = self._free.pop(), needed
            self.running.append(self.waiting.pop(0))
            self.running.sort(key=lambda other: other.order)
            plan.enters.append(Move(one.request.id, one.slot, one.cached, one.swapped))
            one.swapped = False

    def _feed(self, plan: Plan, width: int) -> None:
        """A token of everyone that writes, and of those that read a chunk between them, the oldest first."""
        writing = sum(not one.reading for one in self.running)
        left = self.limits.chunk_tokens
        if self.limits.tpot_target_s and writing:
            left = min(left, max(LEAST_CHUNK, width - writing))
        for one in self.running:
            if not one.cached and (left or not one.reading):
                self._copy(one, plan)
            count = one.known - one.cached
            if one.reading and self.limits.batching == "continuous":
                count = min(count, left)
                left -= count
            if count:
                emits = one.cached + count == one.known
                plan.feeds.append(Feed(one.request.id, _slot(one), one.cached, count, emits))

    def _copy(self, one: Sequence, plan: Plan) -> None:
        """Begin after the blocks that are kept, and read one token at least: only then what follows is known.

        Looked up when its turn comes and not when it enters: by then the older ones may have read the same beginning.
        """
        if not self.prefixes.room:
            return
        places = self.prefixes.find(one.keys[: (one.known - 1) // self.blocks.tokens])
        if places:
            one.cached = len(places) * self.blocks.tokens
            plan.copies.append(Copy(one.request.id, _slot(one), places))
        if not one.looked:
            one.looked = True
            self.prefixes.asked_tokens += len(one.request.prompt)
            self.prefixes.reused_tokens += one.cached

    def _keep(self, plan: Plan) -> None:
        """Places for the blocks of prompts that this step reads to their ends; after all copies have been planned."""
        if not self.prefixes.room:
            return
        running = {one.request.id: one for one in self.running}
        for feed in plan.feeds:
            keys, first = running[feed.id].keys, feed.start // self.blocks.tokens
            whole = keys[: (feed.start + feed.count) // self.blocks.tokens]
            if first < len(whole) and (new := self.prefixes.add(whole, first)):
                blocks, places = zip(*new, strict=True)
                plan.keeps.append(Keep(feed.id, feed.slot, blocks, places))

    def advance(self, plan: Plan, stopped: Collection[int] = ()) -> dict[int, Ended]:
        """The plan was carried out: who ended by it, and why.

        Args:
            stopped: numbers of the requests whose new token is one that ends a text.
        """
        running = {one.request.id: one for one in self.running}
        ended: dict[int, Ended] = {}
        for feed in plan.feeds:
            if feed.ghost:
                continue
            one = running[feed.id]
            one.cached += feed.count
            if not feed.emits:
                continue
            one.known += 1
            if feed.id in stopped or one.written >= one.request.max_new_tokens:
                ended[feed.id] = "stop" if feed.id in stopped else "length"
                self.running.remove(one)
                if self.limits.batching == "static":
                    self.ghosts.append(one)
                else:
                    self._release(one)
        self._end_batch()
        return ended

    def _end_batch(self, early: bool = False) -> None:
        """Rows that have ended let go of what they held: the batch has ended, or is cut short."""
        if early or not self.running:
            for one in self.ghosts:
                self._release(one)
            self.ghosts = []

    def _release(self, one: Sequence) -> None:
        self.blocks.give(one.blocks)
        one.blocks = 0
        if one.slot is not None:
            self._left.append(one.slot)
            self._free.append(one.slot)
            self._free.sort(reverse=True)
            one.slot = None


def _slot(one: Sequence) -> int:
    if one.slot is None:
        raise RuntimeError(f"request {one.request.id} runs without a slot")
    return one.slot
