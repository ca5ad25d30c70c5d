"""Lossless speculation: which guesses the model accepts, what it says instead, and what that costs.

Leviathan et al. 2023 and Chen et al. 2023. Greedy keeps a guess while it is the model's own most likely token, so the
text is the one that plain greedy decoding gives. Sampling keeps a guess t with probability min(1, p(t) / q(t)) and
otherwise draws from max(p - q, 0), normalised, so each token has exactly the distribution p of plain sampling.

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
from backend.techniques.base import Guess


@dataclass
class Speculation:
    """What a request's guesses came to so far. Times in seconds on the decoder's own clock.

    `rounds` counts rounds in which something was guessed, `plain_rounds` the others. `tried[i]` counts how often the
    guess at place i was judged at all (those before it were accepted), `by_place[i]` how often it was accepted.
    """

    drafted: int = 0
    accepted: int = 0
    rounds: int = 0
    plain_rounds: int = 0
    draft_s: float = 0.0  # the proposer, its bookkeeping included; not its prefill, which is part of TTFT
    verify_s: float = 0.0  # the verifying calls, with judging
    plain_s: float = 0.0  # one-token steps of rounds without a guess
    tried: list[int] = field(default_factory=list)
    by_place: list[int] = field(default_factory=list)

    def record(self, drafted: int, accepted: int) -> None:
        """Count one round of `drafted` guesses, the first `accepted` of which were kept."""
        self.rounds += 1
        self.drafted += drafted
        self.accepted += accepted
        missing = drafted - len(self.tried)
        self.tried += [0] * missing
        self.by_place += [0] * missing
        for place in range(min(accepted + 1, drafted)):
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


def judge(logits: Tensor, guess: Guess, sampler: Sampler) -> tuple[list[int], int]:
    """Decide which guesses stand, and what follows them.

    Args:
        logits: (k + 1, V) raw logits of the model: row i is what follows the first i guesses.
        guess: the k guesses, k at least 1.
    Returns:
        The tokens that are emitted, accepted guesses first and one of the model's own last, and how many guesses
        were accepted.
    """
    if sampler.greedy:
        return _judge_greedy(logits, guess.tokens)
    probabilities = sampler.warp(logits)  # (k + 1, V)
    accepted = _accepted(probabilities, guess, sampler)
    rest = probabilities[accepted]
    if accepted < len(guess.tokens):
        rest = _residual(rest, guess, accepted)
    return [*guess.tokens[:accepted], sampler.pick(rest)], accepted


def _judge_greedy(logits: Tensor, tokens: list[int]) -> tuple[list[int], int]:
    best: list[int] = logits.argmax(-1).tolist()  # k + 1 tokens
    accepted = 0
    while accepted < len(tokens) and tokens[accepted] == best[accepted]:
        accepted += 1
    return best[: accepted + 1], accepted


def _accepted(probabilities: Tensor, guess: Guess, sampler: Sampler) -> int:
    """How many guesses in a row pass u < p / q with u uniform; q is 1 where the guess was certain."""
    k = len(guess.tokens)
    tokens = torch.tensor(guess.tokens, device=probabilities.device)[:, None]  # (k, 1)
    bar = sampler.uniform(k, probabilities.device)
    if guess.probabilities is not None:
        bar = bar * guess.probabilities.gather(1, tokens)[:, 0]
    passed: list[bool] = (bar < probabilities[:k].gather(1, tokens)[:, 0]).tolist()
    return passed.index(False) if False in passed else k


def _residual(probabilities: Tensor, guess: Guess, place: int) -> Tensor:
    """What is drawn from after the guess at `place` was rejected: max(p - q, 0) (V,), not normalised."""
    if guess.probabilities is None:
        rest = probabilities.clone()
        rest[guess.tokens[place]] = 0.0
    else:
        rest = (probabilities - guess.probabilities[place]).clamp_min_(0.0)
    # p equal to q up to rounding leaves nothing; a rejection then was rounding too, and p itself is right.
    return rest if float(rest.sum()) > 0.0 else probabilities
