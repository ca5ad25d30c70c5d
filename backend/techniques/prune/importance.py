"""What a head or a neuron is worth: one small function a ranking. The lowest goes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.recipe.base import RecipeError
from backend.techniques.base import Subject
from backend.techniques.prune.activity import CALIBRATION_TOKENS, Part, attention_spread, gate_slopes, measure, silenced
from backend.techniques.walk import refuse_broken

Rank = Callable[[Subject, Sequence[Part], int], list[Tensor]]  # the seed comes last; (units,) for each part


@dataclass(frozen=True)
class Ranking:
    """A function, and what is said of it."""

    rank: Rank
    words: str  # 'chosen by ...'
    reads_text: bool = True
    otherwise: str = ""  # the ranking that stands in where there is no text


def by_output(subject: Subject, parts: Sequence[Part], seed: int) -> list[Tensor]:
    """The norm of what each unit adds to its layer's output on the subject's text.

    |X W^T|^2 = sum of (X^T X) * (W^T W): for a neuron that is the norm of its activation times that of its column, the
    measure of Sun et al. 2023 (Wanda) over whole columns.
    """

    def added(part: Part, inputs: Tensor) -> Tensor:
        entering = inputs.reshape(len(inputs), part.units, -1)  # (T, units, size)
        columns = part.entered.weight.float().reshape(part.entered.out_features, part.units, -1)
        products = torch.einsum("tus,tuv->usv", entering, entering) * torch.einsum("hus,huv->usv", columns, columns)
        return products.sum((1, 2)).clamp_min(0).sqrt()

    return measure(subject, parts, added)


def by_weights(subject: Subject, parts: Sequence[Part], seed: int) -> list[Tensor]:
    """The norm of each unit's columns times those of its rows: its output scales with all of them."""

    def size(part: Part) -> Tensor:
        columns = part.entered.weight.detach().float()
        score: Tensor = columns.reshape(columns.shape[0], part.units, -1).norm(dim=(0, 2))
        for linear in part.rows:
            score = score * linear.weight.detach().float().reshape(part.units, -1).norm(dim=1)
        return score

    return [size(part) for part in parts]


def by_activation(subject: Subject, parts: Sequence[Part], seed: int) -> list[Tensor]:
    """The norm of each unit's activation where it enters its matrix."""
    return measure(subject, parts, lambda part, x: x.reshape(len(x), part.units, -1).norm(dim=(0, 2)))


def by_taylor(subject: Subject, parts: Sequence[Part], seed: int) -> list[Tensor]:
    """The first-order change of the loss without the unit."""
    return gate_slopes(subject, parts)


def by_ablation(subject: Subject, parts: Sequence[Part], seed: int) -> list[Tensor]:
    """What really changes without the unit, alone: Michel et al. 2019, section 3, with KLD in the place of a score."""
    return silenced(subject, parts)


def by_entropy(subject: Subject, parts: Sequence[Part], seed: int) -> list[Tensor]:
    """One less the spread of attention: a head that looks everywhere alike goes first.

    Raises:
        RecipeError: for a model whose attention does not give its weights away.
    """
    spreads = attention_spread(subject, parts)
    if not spreads:
        allowed = "a model whose attention gives its weights away"
        raise RecipeError("switches.prune_heads.by", "entropy", allowed, "Choose another ranking.")
    return [1 - spread for spread in spreads]


def by_chance(subject: Subject, parts: Sequence[Part], seed: int) -> list[Tensor]:
    """Random numbers: what a ranking must beat to be worth anything."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(part.units, generator=generator).to(part.entered.weight.device) for part in parts]


RANKINGS: dict[str, Ranking] = {
    "output": Ranking(by_output, "their output", otherwise="weights"),
    "weights": Ranking(by_weights, "the norm of their weights", reads_text=False),
    "activation": Ranking(by_activation, "the norm of their activation"),
    "taylor": Ranking(by_taylor, "the first-order change of the loss without them"),
    "ablation": Ranking(by_ablation, "what changes when each alone is silenced"),
    "entropy": Ranking(by_entropy, "how spread their attention is"),
    "random": Ranking(by_chance, "chance", reads_text=False),
}


def importance(subject: Subject, parts: Sequence[Part], kind: str, by: str, seed: int = 0) -> tuple[list[Tensor], str]:
    """The worth of every unit (units,), in float32, part by part; and by what it was found, in words.

    Raises:
        RecipeError: naming the switch `kind`, without text where the ranking needs it, or for weights or scores that
            are no numbers.
    """
    ranking, words = RANKINGS[by], RANKINGS[by].words
    refuse_broken(subject, kind)
    if ranking.reads_text:
        if subject.sample_ids:
            words += f" on {len(subject.sample_ids[:CALIBRATION_TOKENS])} tokens"
        elif ranking.otherwise:
            ranking = RANKINGS[ranking.otherwise]
            words = f"{ranking.words}, since there is no text"
        else:
            raise no_text(kind, by)
    scores = [score.float() for score in ranking.rank(subject, parts, seed)]
    for layer, score in enumerate(scores):
        if not torch.isfinite(score).all():
            value = f"{by} gives no number in layer {layer}, unit {int((~torch.isfinite(score)).nonzero()[0])}"
            raise RecipeError(f"switches.{kind}.by", value, "scores that are numbers", "Choose another ranking.")
    return scores, words


def no_text(kind: str, by: str) -> RecipeError:
    """Calibration is missing."""
    remedy = "Load the model with its tokenizer, or choose a ranking that needs no text."
    return RecipeError(f"switches.{kind}.by", f"{by}, calibration missing", "some text to measure on", remedy)
