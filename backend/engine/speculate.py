"""Lossless speculation: which guesses the model accepts, what it says instead, and what that costs.

Leviathan et al. 2023 and Chen et al. 2023. Greedy keeps a guess while it is the model's own most likely token, so the
text is the one that plain greedy decoding gives. Sampling keeps a guess t with probability min(1, p(t) / q(t)) and
otherwise draws from max(p - q, 0), normalised, so each token has exactly the distribution p of plain sampling. Where
several candidates stand at a place, each has its turn against what the ones before it have left of p (Miao et al.
2024, SpecInfer, theorem 4.2); q then is what their own drawing without replacement has left (Jeon et al. 2024,
Recursive Speculative Decoding, algorithm 3).

Exact arithmetic makes the greedy texts equal. A computer verifies k + 1 tokens in one call, whose matrix products
sum in another order than those of one-token calls, so logits differ in their last digits (about 1e-6 of their size
in float32, 1e-2 in bfloat16). Where the two best tokens lie closer than that, either may come first and the texts
part there; in bfloat16 such ties are common. Each token is still the first choice of logits that the model itself
computed (`Emission.logits`). The same holds, only more so, for a model whose output depends on the shape of the call.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from backend.engine.sampling import Sampler
from backend.techniques.guess import Guess


@dataclass
class Speculation:
    """What a request's guesses came to so far. Times in seconds on the decoder's own clock.

    `rounds` counts rounds in which something was guessed, `plain_rounds` the others. `tried[i]` counts how often the
    guess at place i was judged at all (those before it were accepted), `by_place[i]` how often it was accepted.
    `lengths[i]` counts the rounds whose longest row of guesses had i tokens: a tree drafts several for a place.
    """

    source: str = ""  # who guesses, see backend/sources.py
    drafted: int = 0
    accepted: int = 0
    rounds: int = 0
    plain_rounds: int = 0
    draft_s: float = 0.0  # the proposer, its bookkeeping included; not its prefill, which is part of TTFT
    verify_s: float = 0.0  # the verifying calls, with judging
    plain_s: float = 0.0  # one-token steps of rounds without a guess
    tried: list[int] = field(default_factory=list)
    by_place: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def record(self, drafted: int, accepted: int, depth: int | None = None, tried: int | None = None) -> None:
        """Count one round of `drafted` guesses, `accepted` of which were kept.

        Args:
            depth: most of them in a row; all of them in a chain.
            tried: how many places were judged; in a chain one more than were accepted, if there was one more.
        """
        depth = drafted if depth is None else depth
        tried = min(accepted + 1, depth) if tried is None else tried
        self.rounds += 1
        self.drafted += drafted
        self.accepted += accepted
        missing = depth - len(self.tried)
        self.tried += [0] * missing
        self.by_place += [0] * missing
        self.lengths += [0] * (depth + 1 - len(self.lengths))
        self.lengths[depth] += 1
        for place in range(tried):
            self.tried[place] += 1
            self.by_place[place] += place < accepted

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted / drafted; None while nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def alpha(self) -> float | None:
        """Accepted / tried: the chance that a guess is kept once its place is reached, as the theory counts."""
        return self.accepted / sum(self.tried) if self.drafted else None

    @property
    def mean_acceptance_length(self) -> float | None:
        """Tokens a round of guesses gave: 1 + accepted / rounds, the model's own token included."""
        return 1 + self.accepted / self.rounds if self.rounds else None

    @property
    def draft_cost_share(self) -> float | None:
        """Share of the decoding time that guessing took."""
        total = self.draft_s + self.verify_s + self.plain_s
        return self.draft_s / total if total else None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the journal, the shares included."""
        shares = ("acceptance_rate", "alpha", "mean_acceptance_length", "draft_cost_share")
        return asdict(self) | {name: getattr(self, name) for name in shares}


@dataclass(frozen=True)
class Judged:
    """What a round gave: the emitted tokens, the guesses among them, and how many places were judged."""

    tokens: list[int]  # accepted guesses first, one of the model's own last
    path: list[int]  # the accepted guesses by their index, in order
    tried: int

    @property
    def rows(self) -> list[int]:
        """The row of logits that each emitted token was chosen from."""
        return [0, *(index + 1 for index in self.path)]


def judge(logits: Tensor, guess: Guess, sampler: Sampler) -> Judged:
    """Decide which guesses stand, and what follows them.

    Args:
        logits: (n + 1, V) raw logits of the model: row 0 follows the text, row i + 1 follows guess i.
        guess: the n guesses, n at least 1.
    """
    if sampler.greedy:
        return _judge_greedy(logits, guess, sampler)
    return _judge_chain(logits, guess, sampler) if guess.parents is None else _judge_tree(logits, guess, sampler)


def _judge_greedy(logits: Tensor, guess: Guess, sampler: Sampler) -> Judged:
    best: list[int] = sampler.scores(logits, guess.ways).argmax(-1).tolist()  # n + 1 tokens
    tokens, path, at = [best[0]], list[int](), -1
    while (found := next((i for i in guess.after(at) if guess.tokens[i] == best[at + 1]), None)) is not None:
        at = found
        path.append(at)
        tokens.append(best[at + 1])
    return Judged(tokens, path, len(path) + bool(guess.after(at)))


def _judge_chain(logits: Tensor, guess: Guess, sampler: Sampler) -> Judged:
    """Sampling along a chain: all places at once, since each has one candidate."""
    probabilities = sampler.warp(logits, guess.ways)  # (k + 1, V)
    accepted, k = _accepted(probabilities, guess, sampler), len(guess.tokens)
    rest = probabilities[accepted]
    if accepted < k:
        q = None if guess.probabilities is None else guess.probabilities[accepted]
        rest = _residual(rest, q, guess.tokens[accepted])
    tokens = [*guess.tokens[:accepted], sampler.pick(rest)]
    return Judged(tokens, list(range(accepted)), min(accepted + 1, k))


def _judge_tree(logits: Tensor, guess: Guess, sampler: Sampler) -> Judged:
    """Sampling down a tree: only rows that are reached are turned into probabilities."""
    ways, path, at, found = guess.ways, list[int](), -1, True
    while found:
        rest = sampler.warp(logits[at + 1 : at + 2], ways[at + 1 : at + 2])[0]  # (V,)
        children, found = guess.after(at), False
        q = None if guess.probabilities is None or not children else guess.probabilities[children[0]]
        for child in children:
            token = guess.tokens[child]
            bar = float(sampler.uniform(1, rest.device)) * (1.0 if q is None else float(q[token]))
            if bar < float(rest[token]):
                path.append(child)
                at, found = child, True
                break
            rest = _residual(rest, q, token)
            rest = rest / rest.sum()
            q = None if q is None else _without(q, token)
    tokens = [*(guess.tokens[i] for i in path), sampler.pick(rest)]
    return Judged(tokens, path, len(path) + bool(guess.after(at)))


def _accepted(probabilities: Tensor, guess: Guess, sampler: Sampler) -> int:
    """How many guesses in a row pass u < p / q with u uniform; q is 1 where the guess was certain."""
    k = len(guess.tokens)
    tokens = torch.tensor(guess.tokens, device=probabilities.device)[:, None]  # (k, 1)
    bar = sampler.uniform(k, probabilities.device)
    if guess.probabilities is not None:
        bar = bar * guess.probabilities.gather(1, tokens)[:, 0]
    passed: list[bool] = (bar < probabilities[:k].gather(1, tokens)[:, 0]).tolist()
    return passed.index(False) if False in passed else k


def _residual(p: Tensor, q: Tensor | None, token: int) -> Tensor:
    """What is drawn from after `token` was rejected: max(p - q, 0) (V,), not normalised; q None is a point mass."""
    if q is None:
        rest = p.clone()
        rest[token] = 0.0
    else:
        rest = (p - q).clamp_min_(0.0)
    # p equal to q up to rounding leaves nothing; a rejection then was rounding too, and p itself is right.
    return rest if float(rest.sum()) > 0.0 else p


def _without(q: Tensor, token: int) -> Tensor:
    """The distribution (V,) that the next sibling was drawn from: this one's token was not put back."""
    rest = q.clone()
    rest[token] = 0.0
    return rest / rest.sum().clamp_min(torch.finfo(rest.dtype).tiny)
