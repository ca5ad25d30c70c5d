"""A draft model: a smaller model with the same vocabulary guesses (Leviathan et al. 2023; Chen et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache

from backend.recipe.base import RecipeError
from backend.recipe.switches.draft import DraftModel
from backend.techniques.base import Effect, Guess, Subject, cache_bytes, tensor_bytes
from backend.techniques.registry import technique


class DraftModelProposer:
    """Guesses `width` tokens with one call each. Its cache is cropped after a rejection and never recomputed.

    Between rounds it has seen all but the last one or two tokens: the model's own, and the last guess when all were
    accepted. Text longer than the draft's own context gets no guesses.
    """

    def __init__(self, draft: Subject, width: int, vocab: int) -> None:
        self.name = draft.facts.name
        self.draft = draft
        self.width = width
        self._vocab = vocab  # logits of the target: probabilities have this many
        self._rows = _width(draft)
        self._cache: Cache = DynamicCache(config=draft.model.config)
        self._seen = 0  # tokens of the text in the cache

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
    def start(self, ids: list[int]) -> None:
        """Begin with an empty cache and read the prompt."""
        self._cache = DynamicCache(config=self.draft.model.config)
        self._cache.activate_past_recording()  # so that sliding layers can be cropped past their window
        self._seen = 0
        if len(ids) + self.width <= self.draft.facts.context:
            self._call(self._tensor(ids))
            self._cache.crop(0)
            self._seen = len(ids)

    @torch.inference_mode()
    def propose(self, ids: list[int], warp: Callable[[Tensor], Tensor], generator: torch.Generator | None) -> Guess:
        """Guess `width` tokens: the most likely ones when greedy, otherwise drawn after the same warp."""
        if len(ids) + self.width > self.draft.facts.context:
            return Guess([])
        fed = self._tensor(ids[self._seen :])  # (1, T): one or two tokens
        tokens: list[Tensor] = []
        rows: list[Tensor] = []
        for _ in range(self.width):
            logits = self._call(fed)  # (1, V)
            if generator is None:
                fed = logits.argmax(-1, keepdim=True)
            else:
                rows.append(warp(logits))
                fed = torch.multinomial(rows[-1], 1, generator=generator)
            tokens.append(fed)
        self._seen = len(ids) + self.width - 1  # the last guess was not fed
        return Guess(torch.cat(tokens, 1)[0].tolist(), torch.cat(rows) if rows else None)

    def accepted(self, count: int) -> None:
        """Crop what was fed and not kept."""
        fed = self.width - 1
        kept = min(count, fed)
        self._cache.crop(kept - fed)
        self._seen += kept - fed

    def _tensor(self, ids: list[int]) -> Tensor:
        # The target's padding rows may be more than the draft's; such a token has no meaning in either model.
        return torch.tensor([[min(token, self._rows - 1) for token in ids]], device=self.draft.device)

    def _call(self, ids: Tensor) -> Tensor:
        """Raw logits (1, V) after `ids` (1, T), in the target's width: padding is cut, or has no chance."""
        logits: Tensor = self.draft.model(input_ids=ids, cache=self._cache, use_cache=True, logits_to_keep=1).logits
        logits = logits[:, -1, : self._vocab]
        missing = self._vocab - logits.shape[-1]
        return F.pad(logits, (0, missing), value=float("-inf")) if missing else logits


@technique(DraftModel)
class ModelDrafting:
    """Loads the draft and puts it into the subject's plan."""

    def apply(self, subject: Subject, switch: DraftModel) -> None:
        """Make the engine verify a draft's guesses.

        Raises:
            RecipeError: when no second model can be loaded here, or the two vocabularies differ.
        """
        field = f"switches.{switch.kind}.model"
        if subject.load_other is None:
            remedy = "Switch the draft off, or use prompt lookup."
            raise RecipeError(field, switch.model, "a place where a second model can be loaded", remedy)
        draft = subject.load_other(switch.model)
        if difference := _difference(subject, draft):
            allowed = f"a draft with the vocabulary of {subject.facts.name}; {difference}"
            raise RecipeError(field, switch.model, allowed, "Pick a smaller model of the same family.")
        nn.Module.to(draft.model, subject.device)  # guesses are verified where the model is
        draft.device = subject.device
        subject.plan.proposer = DraftModelProposer(draft, switch.tokens, _width(subject))

    def read_back(self, subject: Subject, switch: DraftModel) -> Effect:
        """Look at the proposer in the plan, at the model in it, and whether it guessed in the run."""
        proposer = subject.plan.proposer
        if not isinstance(proposer, DraftModelProposer):
            return Effect(switch.kind, took_effect=False, summary="no draft model in the decode plan")
        draft = proposer.draft
        parameters = sum(weight.numel() for weight in draft.model.parameters())
        run = subject.run
        guessed = run is None or run.drafted > 0
        tail = "" if guessed else "; it guessed nothing in the run"
        return Effect(
            switch.kind,
            took_effect=guessed and proposer.width == switch.tokens,
            summary=f"{proposer.name} ({parameters / 1e6:.3g}M) guesses {proposer.width} tokens at a time{tail}",
            facts={
                "proposer": proposer.name,
                "tokens": proposer.width,
                "draft_parameters": parameters,
                "rounds": run.rounds if run else None,
                "drafted": run.drafted if run else None,
                "draft_weights_bytes": proposer.weights_bytes,
                "draft_dtype": str(draft.model.dtype).removeprefix("torch."),
                "draft_device": str(draft.device),
                "draft_vocab": _width(draft),
                "vocab": _width(subject),
                "tokenizer_entries": len(draft.tokenizer) if draft.tokenizer else None,
            },
        )


def _difference(subject: Subject, draft: Subject) -> str | None:
    """What sets the two vocabularies apart, or None. Rows beyond the tokenizer's last entry are padding."""
    ours, theirs = subject.facts.name, draft.facts.name
    widths = f"{ours} has {_width(subject):,} rows and {theirs} {_width(draft):,}"
    if subject.tokenizer is None or draft.tokenizer is None:
        return None if _width(subject) == _width(draft) else widths
    mine, other = subject.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    if mine != other:
        shared = len(mine.items() & other.items())
        return f"{ours} has {len(mine):,} entries, {theirs} {len(other):,}, and {shared:,} are the same"
    least = max(mine.values()) + 1
    return None if min(_width(subject), _width(draft)) >= least else f"{widths}, for {least:,} tokens"


def _width(subject: Subject) -> int:
    """How many logits the model gives: its vocabulary with its padding."""
    return int(subject.model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
