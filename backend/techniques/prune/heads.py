"""Attention heads removed: smaller q, k, v and o projections, and a smaller KV cache where KV heads go too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import PruneHeads
from backend.techniques.anatomy import (
    BertAttention,
    attentions,
    keep_columns,
    keep_rows,
    pass_one_token,
    refusal_to_reload,
    text_config,
)
from backend.techniques.base import Effect, Subject
from backend.techniques.prune.activity import chosen_by, measure
from backend.techniques.registry import technique

NO_HEAD_SIZE = "its config has no word for the size of a head, and takes it for hidden size / heads"


@technique(PruneHeads)
class HeadPruning:
    """Removes the same number of heads from every layer, those that add least to its output first.

    A unit is what can go alone: a KV head with all its query heads where there are several KV heads, a single query
    head where all share one. Every layer loses equally many, so that one config still describes all of them.
    """

    def apply(self, subject: Subject, switch: PruneHeads) -> None:
        """Cut the projections of every layer.

        Raises:
            RecipeError: for an unknown build, or when no head would be left.
        """
        blocks = attentions(subject.model, switch.kind)
        config = text_config(subject.model)
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", heads)  # BERT has as many as heads, and no word for it
        units = kv_heads if kv_heads > 1 else heads
        kept = units - round(switch.ratio * units)
        if kept < 1:
            remedy = "Lower the ratio."
            raise RecipeError(f"switches.{switch.kind}.ratio", switch.ratio, f"at most {1 - 1 / units:.2g}", remedy)
        if kept == units:
            return
        per_unit = heads // units
        scores = importance(subject, blocks, units)
        for block, score in zip(blocks, scores, strict=True):
            _cut(block, score.topk(kept).indices.sort().values, per_unit, kv_heads > 1)
        subject.notes[switch.kind] = {"chosen_by": chosen_by(subject)}
        config.head_dim = blocks[0].head_dim  # explicit from here on: hidden / heads is no longer the size of a head
        config.num_attention_heads = kept * per_unit
        if hasattr(config, "num_key_value_heads"):
            config.num_key_value_heads = kept if kv_heads > 1 else 1
        for block in blocks:
            if isinstance(block, BertAttention):
                block.describe(config.num_attention_heads)
            else:
                _describe(block, config)

    def read_back(self, subject: Subject, switch: PruneHeads) -> Effect:
        """Count the heads that a token passes through and the KV heads that it leaves in a cache."""
        passage = pass_one_token(subject.model)
        heads = [width // subject.facts.head_dim for width in passage.attention]
        before, after = subject.facts.heads, max(heads, default=subject.facts.heads)
        kv_after = max(passage.kv_heads, default=subject.facts.kv_heads)
        is_encoder = subject.facts.task == "encoder"
        refusal = NO_HEAD_SIZE if is_encoder else refusal_to_reload(subject.model)
        return Effect(
            kind=switch.kind,
            took_effect=after < before,
            summary=f"{after} of {before} heads a layer"
            + ("" if is_encoder else f", {kv_after} of {subject.facts.kv_heads} KV heads"),
            facts={
                "asked_ratio": switch.ratio,
                "real_ratio": 1 - after / before,
                "heads_before": before,
                "heads_after": after,
                "kv_heads_before": subject.facts.kv_heads,
                "kv_heads_after": kv_after,
                "chosen_by": subject.notes.get(switch.kind, {}).get("chosen_by", "nothing"),
                "saved_config": f"transformers refuses it: {refusal}" if refusal else "can be loaded again",
            },
        )


def importance(subject: Subject, blocks: list[Any], units: int) -> list[Tensor]:
    """One number a unit (units,) for every layer: how much the unit adds to the layer's output on the subject's text.

    Without text it is the norm of the unit's weights, a poor guess: in Gemma 3 small weights often matter most.
    """
    if not subject.sample_ids:
        return [by_weights(block, units) for block in blocks]

    def added(output: nn.Linear, inputs: Tensor) -> Tensor:
        parts = zip(inputs.chunk(units, dim=1), output.weight.float().chunk(units, dim=1), strict=True)
        return torch.stack([(entering @ columns.T).norm() for entering, columns in parts])

    return measure(subject, [block.o_proj for block in blocks], added)


def by_weights(block: Any, units: int) -> Tensor:
    """The norm of each unit's columns of o, times that of its rows of v where it has its own; (units,)."""
    output = block.o_proj.weight.detach().float()  # (hidden, heads * head_dim)
    score: Tensor = output.reshape(output.shape[0], units, -1).norm(dim=(0, 2))
    value = block.v_proj.weight.detach().float()  # (kv_heads * head_dim, hidden)
    if value.shape[0] == units * block.head_dim:
        score = score * value.reshape(units, -1).norm(dim=1)
    return score


def _cut(block: Any, units: Tensor, per_unit: int, with_kv: bool) -> None:
    """Keep these units: their query heads, and their KV head where each has one."""
    query = _spread(units, per_unit * block.head_dim)
    keep_rows(block.q_proj, query)
    keep_columns(block.o_proj, query)
    if with_kv:
        own = _spread(units, block.head_dim)
        keep_rows(block.k_proj, own)
        keep_rows(block.v_proj, own)


def _spread(units: Tensor, size: int) -> Tensor:
    """Indices of the rows (units * size,) that belong to these units of `size` rows each."""
    return (units[:, None] * size + torch.arange(size, device=units.device)).flatten()


def _describe(block: nn.Module, config: Any) -> None:
    """Make an attention's own numbers true again; which of them it has depends on the architecture."""
    true = {
        "num_heads": config.num_attention_heads,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "num_key_value_groups": config.num_attention_heads // config.num_key_value_heads,
    }
    for name, value in true.items():
        if hasattr(block, name):
            setattr(block, name, value)
