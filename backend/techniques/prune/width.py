"""Hidden width removed: a narrower residual stream, and with it every matrix, the embedding and the head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.width import PruneWidth
from backend.techniques.anatomy import attentions, keep_columns, keep_rows, refusal_to_reload, text_config
from backend.techniques.base import Effect, Subject
from backend.techniques.prune.activity import CALIBRATION_TOKENS, run
from backend.techniques.prune.importance import no_text
from backend.techniques.prune.select import stay, tie_words, tied
from backend.techniques.prune.stream import Stream, effective, stream_of
from backend.techniques.registry import technique
from backend.techniques.walk import refuse_broken

Rank = Callable[[Subject, Stream, int], Tensor]  # (hidden,), the lowest goes first


@technique(PruneWidth)
class WidthPruning:
    """Removes the same dimensions everywhere; what is left computes as if the others were zero, but for the norms.

    An RMSNorm divides by the root of the mean square over all dimensions. Over fewer it is another number, so each
    norm's weight is multiplied by the mean over tokens of what was against what is now; without text it is not.
    """

    def apply(self, subject: Subject, switch: PruneWidth) -> None:
        """Cut the stream.

        Raises:
            RecipeError: for an unknown build, a ratio that leaves nothing, or a ranking that cannot be had.
        """
        stream = stream_of(subject.model, switch.kind)
        hidden = stream.embedding.embedding_dim
        kept = switch.kept(hidden)
        if kept < 1:
            allowed = f"at most {1 - 1 / hidden:.3g}"
            raise RecipeError(f"switches.{switch.kind}.ratio", switch.ratio, allowed, "Lower the ratio.")
        refuse_broken(subject, switch.kind)
        if switch.by == "activation" and not subject.sample_ids:
            raise no_text(switch.kind, switch.by)
        score = RANKINGS[switch.by](subject, stream, switch.seed)
        if not torch.isfinite(score).all():
            value = f"{switch.by} gives no number in dimension {int((~torch.isfinite(score)).nonzero()[0])}"
            raise RecipeError(f"switches.{switch.kind}.by", value, "scores that are numbers", "Choose another.")
        keep = stay(score, hidden - kept)
        factors = norm_factors(subject, stream, keep)
        head_dim = attentions(subject.model, switch.kind)[0].head_dim
        narrow(stream, keep, factors)
        config = text_config(subject.model)
        config.head_dim = head_dim  # explicit from here on: hidden / heads is no longer the size of a head
        config.hidden_size = kept
        words = WORDS[switch.by].format(len(subject.sample_ids[:CALIBRATION_TOKENS]))
        ties = tie_words(tied([score], [hidden - kept]))
        corrected = f"by {min(factors):.3g} to {max(factors):.3g}" if subject.sample_ids else "not at all: no text"
        subject.notes[switch.kind] = {"chosen_by": words, "ties": ties, "norms": corrected}

    def read_back(self, subject: Subject, switch: PruneWidth) -> Effect:
        """Measure how wide the states are that pass through the first and the last layer."""
        after = max(widths_passed(subject), default=subject.facts.hidden)
        before, notes = subject.facts.hidden, subject.notes.get(switch.kind, {})
        refusal = refusal_to_reload(subject.model)
        return Effect(
            kind=switch.kind,
            took_effect=after < before,
            summary=f"{after} of {before} dimensions, {1 - after / before:.1%} fewer",
            facts={
                "asked_ratio": switch.ratio,
                "real_ratio": 1 - after / before,
                "width_before": before,
                "width_after": after,
                "chosen_by": notes.get("chosen_by", "nothing"),
                "ties": notes.get("ties", "none"),
                "norms_corrected": notes.get("norms", "not at all"),
                "saved_config": f"transformers refuses it: {refusal}" if refusal else "can be loaded again",
            },
        )


@torch.inference_mode()
def widths_passed(subject: Subject) -> set[int]:
    """The widths of the states of one token, before every layer and after the last; empty for an unknown build."""
    states = subject.model(
        input_ids=torch.zeros((1, 1), dtype=torch.long, device=subject.device), output_hidden_states=True
    ).hidden_states
    return {int(state.shape[-1]) for state in states or ()}


@torch.inference_mode()
def by_activation(subject: Subject, stream: Stream, seed: int) -> Tensor:
    """The mean size of each dimension after a norm, summed over all norms: Muralidharan et al. 2024, section 2.2."""
    found = torch.zeros(stream.embedding.embedding_dim, device=subject.device)

    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        found.add_(output.flatten(0, -2).float().abs().mean(0))

    _hooked(subject, stream, lambda norm: norm.register_forward_hook(add))
    return found.clone()


def by_weights(subject: Subject, stream: Stream, seed: int) -> Tensor:
    """The norm of all weights that read or write the dimension."""
    squares = [linear.weight.detach().float().square().sum(0) for linear in stream.readers]
    squares += [linear.weight.detach().float().square().sum(1) for linear in stream.writers]
    return torch.stack(squares).sum(0).sqrt()


def by_chance(subject: Subject, stream: Stream, seed: int) -> Tensor:
    """Random numbers."""
    return torch.rand(stream.embedding.embedding_dim, generator=torch.Generator().manual_seed(seed)).to(subject.device)


RANKINGS: dict[str, Rank] = {"activation": by_activation, "weights": by_weights, "random": by_chance}
WORDS = {
    "activation": "their size after norms on {} tokens",
    "weights": "the norm of their weights",
    "random": "chance",
}


@torch.inference_mode()
def norm_factors(subject: Subject, stream: Stream, keep: Tensor) -> list[float]:
    """By what each norm's output would shrink, mean over tokens of sqrt(h S_K / (k S)); 1 without text.

    S is the sum of squares of all h dimensions, S_K of the k that stay.
    """
    found: dict[int, float] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        squares = args[0].flatten(0, -2).float().square()  # (T, hidden)
        ratio = squares[:, keep].mean(-1) / squares.mean(-1).clamp_min(torch.finfo(torch.float32).tiny)
        found[id(module)] = float(ratio.sqrt().mean())

    if subject.sample_ids:
        _hooked(subject, stream, lambda norm: norm.register_forward_pre_hook(note))
    return [found.get(id(norm), 1.0) or 1.0 for norm in stream.norms]


def _hooked(subject: Subject, stream: Stream, hook: Callable[[nn.Module], Any]) -> None:
    """Run the text with a hook on every norm."""
    handles = [hook(norm) for norm in stream.norms]
    try:
        run(subject, subject.sample_ids[:CALIBRATION_TOKENS])
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def narrow(stream: Stream, keep: Tensor, factors: list[float]) -> None:
    """Keep these dimensions, in place.

    A scaled embedding (Gemma multiplies by sqrt(hidden)) takes its new scale, which a config says too, and its table
    the ratio; where the head is that table, the last norm takes it back.
    """
    was, tied_head = stream.embedding.embedding_dim, stream.tied
    stretch = (was / len(keep)) ** 0.5 if stream.scale != 1.0 else 1.0
    for linear in stream.readers:
        keep_columns(linear, keep)
    for linear in stream.writers:
        keep_rows(linear, keep)
    factors = [*factors[:-1], factors[-1] / (stretch if tied_head else 1.0)]
    for norm, factor in zip(stream.norms, factors, strict=True):
        weight = (effective(norm, stream.offset)[keep] * factor - stream.offset).to(norm.weight.dtype)  # type: ignore[arg-type]
        norm.weight = nn.Parameter(weight, requires_grad=False)
    table = stream.embedding.weight[:, keep] * stretch
    stream.embedding.weight = nn.Parameter(table.contiguous(), requires_grad=False)
    stream.embedding.embedding_dim = len(keep)
    if stretch != 1.0:
        scale: Any = stream.embedding.embed_scale
        stream.embedding.embed_scale = scale / stretch
        stream.embedding.scalar_embed_scale = float(scale) / stretch  # type: ignore[assignment]
    if tied_head:
        stream.head.weight = stream.embedding.weight
        stream.head.in_features = len(keep)
    else:
        keep_columns(stream.head, keep)
