"""Guesses of a second, cheaper model (Leviathan et al. 2023; Chen et al. 2023), along a chain or with side branches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, DynamicCache

from backend.techniques.base import Subject, cache_bytes, tensor_bytes
from backend.techniques.guess import Chooser, Guess, Pacer, Source


class DraftModelProposer:
    """Guesses up to `depth` tokens with one call each. Its cache is cropped after a rejection and never recomputed.

    Between rounds it has seen all but the last tokens: the model's own, the last guess when all were accepted, and
    those of rounds in which it was not asked. Text longer than the draft's own context gets no guesses.

    With `branches` above 1 each place has its next likeliest candidates beside the one that is followed. They cost
    no further call, since the draft's logits at that place are there; a chain that breaks has a second chance.
    """

    source: Source = "draft"

    def __init__(self, draft: Subject, depth: int, vocab: int, branches: int = 1, pace: Pacer | None = None) -> None:
        self.name = draft.facts.name
        self.draft = draft
        self.depth = depth
        self.branches = branches
        self.pace = pace
        self._vocab = vocab  # logits of the target: probabilities have this many
        self._rows = vocab_rows(draft)
        self._cache: Cache = DynamicCache(config=draft.model.config)
        self._seen = 0  # tokens of the text in the cache
        self._main: list[int] = []  # of the last guess: which of it is the chain that was followed

    @property
    def width(self) -> int:
        """Most tokens guessed at a time."""
        return self.depth * self.branches

    @property
    def kv_bytes(self) -> int:
        """Bytes that the draft's own cache holds."""
        return cache_bytes(self._cache)

    @property
    def weights_bytes(self) -> int:
        """Bytes of the draft's weights and buffers, shared ones once."""
        model = self.draft.model
        return tensor_bytes(*model.parameters(), *model.buffers())

    @torch.inference_mode()
    def start(self, ids: list[int], cache: Cache) -> None:
        """Begin with an empty cache and read the prompt."""
        self._cache = DynamicCache(config=self.draft.model.config)
        self._cache.activate_past_recording()  # so that sliding layers can be cropped past their window
        self._seen = 0
        if len(ids) + self.depth <= self.draft.facts.context:
            self._call(self._tensor(ids))
            self._cache.crop(0)
            self._seen = len(ids)

    @torch.inference_mode()
    def propose(self, ids: list[int], chooser: Chooser, most: int) -> Guess:
        """Guess up to `most` tokens in a row: the likeliest when greedy, otherwise drawn as the sampling asks."""
        most = min(most, self.depth)
        if len(ids) + most > self.draft.facts.context:
            return Guess([])
        fed = self._tensor(ids[self._seen :])  # (1, T)
        drawn: list[Tensor] = []
        rows: list[Tensor] = []
        for _ in range(most):
            tokens, row = chooser.draw(self._call(fed), [one[:, :1] for one in drawn], self.branches)
            drawn.append(tokens)
            rows += [] if row is None else [row]
            fed = tokens[:, :1]
        self._seen = len(ids) + most - 1  # the last guess was not fed
        return self._guess(torch.cat(drawn), torch.cat(rows) if rows else None)

    def accepted(self, path: Sequence[int]) -> None:
        """Crop what was fed and not kept."""
        fed = len(self._main) - 1
        followed = sum(ours == theirs for ours, theirs in zip(path, self._main, strict=False))
        kept = min(followed, fed)
        self._cache.crop(kept - fed)
        self._seen += kept - fed

    def _guess(self, drawn: Tensor, rows: Tensor | None) -> Guess:
        """The chain of first candidates, with the others at its side; `drawn` (k, branches), `rows` (k, V)."""
        if self.branches == 1:
            tokens: list[int] = drawn[:, 0].tolist()
            self._main = list(range(len(tokens)))
            return Guess(tokens, rows)
        tokens, parents, places, self._main = [], [], [], []
        can_be = (drawn >= 0 if rows is None else rows.gather(1, drawn) > 0).tolist()
        for place, candidates in enumerate(drawn.tolist()):
            parent = self._main[-1] if self._main else -1
            self._main.append(len(tokens))
            possible = [token for token, there in zip(candidates, can_be[place], strict=True) if there]
            tokens += possible
            parents += [parent] * len(possible)
            places += [place] * len(possible)
        return Guess(tokens, None if rows is None else rows[places], parents)

    def _tensor(self, ids: list[int]) -> Tensor:
        # The target's padding rows may be more than the draft's; such a token has no meaning in either model.
        return torch.tensor([[min(token, self._rows - 1) for token in ids]], device=self.draft.device)

    def _call(self, ids: Tensor) -> Tensor:
        """Raw logits (1, V) after `ids` (1, T), in the target's width: padding is cut, or has no chance."""
        logits: Tensor = self.draft.model(input_ids=ids, cache=self._cache, use_cache=True, logits_to_keep=1).logits
        logits = logits[:, -1, : self._vocab]
        missing = self._vocab - logits.shape[-1]
        return F.pad(logits, (0, missing), value=float("-inf")) if missing else logits


def vocab_rows(subject: Subject) -> int:
    """How many logits the model gives: its vocabulary with its padding."""
    return int(subject.model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
