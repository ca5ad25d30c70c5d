"""Attention heads removed: smaller q, k, v and o projections, and a smaller KV cache where KV heads go too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backend.recipe.base import RecipeError
from backend.recipe.named import Heads
from backend.recipe.switches.pruning import PruneHeads
from backend.techniques.anatomy import (
    attentions,
    describe_heads,
    head_widths,
    keep_columns,
    keep_rows,
    pass_one_token,
    refusal_to_reload,
    text_config,
)
from backend.techniques.base import Effect, Subject
from backend.techniques.prune.activity import Part
from backend.techniques.prune.importance import importance
from backend.techniques.prune.select import lost_globally, marked, stay, tie_words, tied
from backend.techniques.registry import technique

NO_HEAD_SIZE = "transformers refuses it: its config has no word for the size of a head, and takes it for hidden / heads"
UNEVEN = "transformers has no word for widths that differ by layer: saved here it loads here, and nowhere else"


@technique(PruneHeads)
class HeadPruning:
    """Removes the heads of the lowest rank, as many from every layer or the lowest of all.

    A unit is what can go alone: a KV head with all its query heads where a layer has several KV heads, a single query
    head where all share one. Where every layer loses equally many, one config still describes all of them.
    """

    def apply(self, subject: Subject, switch: PruneHeads) -> None:
        """Cut the projections of every layer.

        Raises:
            RecipeError: for an unknown build, heads that the model has not, when no head would be left in a layer, or
                where the ranking cannot be had.
        """
        blocks = attentions(subject.model, switch.kind)
        _refuse(subject, switch, blocks)
        alive = [list(range(part_of(block).units)) for block in blocks]
        units = [len(own) for own in alive]
        asked = switch.lost(units) if switch.scope == "layer" else [switch.lost_of_all(units)]
        step = switch.at_a_time or max(asked)
        turns = -(-max(asked) // step)
        way, ties = "", 0
        for turn in range(turns):
            subject.progress(turn / turns, f"Ranking heads, {turn * step} of {max(asked)} gone")
            now = [min(step, max(0, count - turn * step)) for count in asked]
            way, more = _one_turn(subject, switch, blocks, alive, now)
            ties += more
        way += f", ranked again after every {step}" if turns > 1 else ""
        subject.notes[switch.kind] = {"chosen_by": way, "ties": tie_words(ties), "kept": alive}

    def read_back(self, subject: Subject, switch: PruneHeads) -> Effect:
        """Count the heads that a token passes through and the KV heads that it leaves in a cache, layer by layer."""
        passage = pass_one_token(subject.model)
        heads = [width // subject.facts.head_dim for width in passage.attention] or [subject.facts.heads]
        kv_heads = passage.kv_heads or [subject.facts.kv_heads]
        before, after = subject.facts.heads, sum(heads) / len(heads)
        is_encoder = subject.facts.task == "encoder"
        shown = _span(heads)
        notes = subject.notes.get(switch.kind, {})
        return Effect(
            kind=switch.kind,
            took_effect=after < before,
            summary=f"{shown} of {before} heads a layer"
            + ("" if is_encoder else f", {_span(kv_heads)} of {subject.facts.kv_heads} KV heads"),
            facts={
                "asked_ratio": switch.ratio,
                "real_ratio": 1 - after / before,
                "heads_before": before,
                "heads_after": heads[0] if len(set(heads)) == 1 else ", ".join(map(str, heads)),
                "kv_heads_before": subject.facts.kv_heads,
                "kv_heads_after": kv_heads[0] if len(set(kv_heads)) == 1 else ", ".join(map(str, kv_heads)),
                "chosen_by": notes.get("chosen_by", "nothing"),
                "ties": notes.get("ties", "none"),
                "saved_config": _saved_config(subject, len({*heads}) > 1 or len({*kv_heads}) > 1),
            },
        )


def _one_turn(
    subject: Subject, switch: PruneHeads, blocks: Sequence[Any], alive: list[list[int]], asked: Sequence[int]
) -> tuple[str, int]:
    """Rank what is alive and cut the lowest: so many of each layer, or of all together where one number is given.

    Returns:
        By what they were ranked, and in how many layers equals were told apart by index.
    """
    parts = [part_of(block) for block in blocks]
    scores, way = importance(subject, parts, switch.kind, switch.by, switch.seed)
    scores = marked(scores, _places(switch.removed, alive), _places(switch.kept, alive))
    last = [len(own) != part.units for own, part in zip(alive, parts, strict=True)]  # one KV head of several is left
    for score in (score for score, is_last in zip(scores, last, strict=True) if is_last):
        score.fill_(torch.inf)
    lost = list(asked) if switch.scope == "layer" else lost_globally(scores, asked[0])
    for place, (block, part, score) in enumerate(zip(blocks, parts, scores, strict=True)):
        if last[place]:
            continue
        kept = stay(score, min(lost[place], len(score) - 1))
        _cut(block, kept, part.units)
        alive[place] = [alive[place][unit] for unit in kept.tolist()]
    _describe(subject, blocks)
    return way, tied(scores, lost)


def _places(named: Heads, alive: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Where the named heads stand among those that are alive."""
    return {
        layer: [alive[layer].index(head) for head in heads if head in alive[layer]] for layer, heads in named.items()
    }


def part_of(block: Any) -> Part:
    """An attention's units: KV heads with their query heads where there are several, else query heads."""
    heads, kv_heads = head_widths(block)
    units = kv_heads if kv_heads > 1 else heads
    own_values = block.v_proj.out_features == units * block.head_dim
    return Part(block.o_proj, units, (block.v_proj,) if own_values else (), getattr(block, "inner", block))


def _refuse(subject: Subject, switch: PruneHeads, blocks: Sequence[Any]) -> None:
    """The switch's own reasons, asked of the model as it is now: other switches may have gone before."""
    heads, kv_heads = max(head_widths(block) for block in blocks)
    facts = replace(subject.facts, layers=len(blocks), heads=heads, kv_heads=kv_heads)
    if reason := switch.refuse(facts):
        named = f"ratio={switch.ratio}, remove={switch.remove!r}, keep={switch.keep!r}"
        raise RecipeError(f"switches.{switch.kind}", named, reason, "Lower the ratio, or name other heads.")


def _describe(subject: Subject, blocks: Sequence[Any]) -> None:
    """Make every attention's own numbers true, and the config's where all layers agree.

    Where they do not, the config keeps what can be built; `Widths` of a saved model then tell the rest.
    """
    for block in blocks:
        describe_heads(block)
    config, widths = text_config(subject.model), {head_widths(block) for block in blocks}
    config.head_dim = blocks[0].head_dim  # explicit from here on: hidden / heads is no longer the size of a head
    if len(widths) == 1:
        ((heads, kv_heads),) = widths
        config.num_attention_heads = heads
        if hasattr(config, "num_key_value_heads"):  # BERT has as many as heads, and no word for it
            config.num_key_value_heads = kv_heads


def _saved_config(subject: Subject, uneven: bool) -> str:
    if uneven:
        return UNEVEN
    if subject.facts.task == "encoder":
        return NO_HEAD_SIZE
    refusal = refusal_to_reload(subject.model)
    return f"transformers refuses it: {refusal}" if refusal else "can be loaded again"


def _span(counts: Sequence[int]) -> str:
    """'3', or '1 to 4' where layers differ."""
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def _cut(block: Any, kept: Tensor, units: int) -> None:
    """Keep these units: their query heads, and their KV head where each has one."""
    heads, kv_heads = head_widths(block)
    query = _spread(kept, heads // units * block.head_dim)
    keep_rows(block.q_proj, query)
    keep_columns(block.o_proj, query)
    if kv_heads > 1:
        own = _spread(kept, block.head_dim)
        keep_rows(block.k_proj, own)
        keep_rows(block.v_proj, own)


def _spread(units: Tensor, size: int) -> Tensor:
    """Indices of the rows (units * size,) that belong to these units of `size` rows each."""
    return (units[:, None] * size + torch.arange(size, device=units.device)).flatten()
