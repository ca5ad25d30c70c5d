"""Fewer key-value heads: the heads of a group replaced by their mean or by the first, as in GQA and MQA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import KVHeads
from backend.techniques.anatomy import (
    attentions,
    head_widths,
    keep_columns,
    keep_rows,
    pass_one_token,
    text_config,
)
from backend.techniques.attention.likeness import group_alike, head_likeness
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique


@technique(KVHeads)
class KVHeadPooling:
    """One k and v projection for each group of heads (Ainslie et al. 2023): their mean, or the first of them.

    Groups are of neighbours, or of heads whose keys and values are alike on text; query heads then go along with
    theirs. Norms of keys (Gemma 3, Qwen 3) work on one head and so stay too.
    """

    def apply(self, subject: Subject, switch: KVHeads) -> None:
        """Pool the k and v projections of every layer.

        Raises:
            RecipeError: for an unknown build, or a count that does not divide the KV heads.
        """
        blocks = attentions(subject.model, switch.kind)
        config = text_config(subject.model)
        heads, before = config.num_attention_heads, config.num_key_value_heads
        if switch.count >= before or before % switch.count:
            divisors = ", ".join(str(n) for n in range(1, before) if before % n == 0) or "nothing: it has one already"
            remedy = "Choose another count or switch it off."
            raise RecipeError(f"switches.{switch.kind}.count", switch.count, divisors, remedy)
        notes = {"kv_values": pass_one_token(subject.model).kv_values, "regrouped_layers": 0}
        if switch.grouping == "activation" and switch.count > 1:  # one group holds all heads in any order
            orders = [group_alike(likeness, switch.count) for likeness in head_likeness(subject, blocks)]
            notes["regrouped_layers"] = sum(order != list(range(before)) for order in orders)
            for block, order in zip(blocks, orders, strict=True):
                put_in_order(block, order, switch.kind)
        for block in blocks:
            for linear in (block.k_proj, block.v_proj):
                pool(linear, before, switch.count, first=switch.grouping == "first")
            block.num_key_value_groups = heads // switch.count
            if hasattr(block, "num_key_value_heads"):
                block.num_key_value_heads = switch.count
        config.num_key_value_heads = switch.count
        subject.notes[switch.kind] = notes

    def read_back(self, subject: Subject, switch: KVHeads) -> Effect:
        """Measure what one token leaves in a live cache, in the type that it has there."""
        passage = pass_one_token(subject.model)
        before, after = subject.facts.kv_heads, max(passage.kv_heads, default=subject.facts.kv_heads)
        notes = subject.notes.get(switch.kind, {"kv_values": subject.facts.kv_values_per_token})
        size = passage.kv_bytes // passage.kv_values if passage.kv_values else 0
        bytes_before = notes["kv_values"] * size
        return Effect(
            kind=switch.kind,
            took_effect=after == switch.count < before,
            summary=f"{after} of {before} KV heads, {passage.kv_bytes:,} and not {bytes_before:,} bytes a token",
            facts={
                "kv_heads_before": before,
                "kv_heads_after": after,
                "kv_bytes_per_token_before": bytes_before,
                "kv_bytes_per_token_after": passage.kv_bytes,
                "regrouped_layers": notes.get("regrouped_layers", 0),
            },
        )


def pool(linear: nn.Linear, before: int, after: int, first: bool = False) -> None:
    """Replace the outputs of `before` heads by the means, or the first, of `after` groups of neighbours, in place."""

    def one(rows: Tensor) -> nn.Parameter:
        # (before * head_dim, ...) -> (after, group, head_dim, ...) -> (after * head_dim, ...)
        grouped = rows.detach().reshape(after, before // after, -1, *rows.shape[1:])
        kept = grouped[:, 0] if first else grouped.mean(1, dtype=torch.float32)
        return nn.Parameter(kept.to(rows.dtype).flatten(0, 1).contiguous(), rows.requires_grad)

    linear.weight = one(linear.weight)
    if linear.bias is not None:
        linear.bias = one(linear.bias)
    linear.out_features = linear.weight.shape[0]


def put_in_order(block: Any, order: list[int], kind: str) -> None:
    """Let the KV heads of an attention stand in this order, each with its query heads: the output stays the same.

    Raises:
        RecipeError: where the query projection holds more than query heads.
    """
    heads, kv_heads = head_widths(block)
    size, each = block.head_dim, heads // kv_heads
    if block.q_proj.out_features != heads * size:
        allowed, remedy = "a query projection of query heads alone", "Choose the grouping mean or first."
        raise RecipeError(f"switches.{kind}.grouping", "activation", allowed, remedy)
    device = block.q_proj.weight.device
    keys = torch.tensor(order, device=device)
    queries = (keys[:, None] * each + torch.arange(each, device=device)).flatten()
    places = torch.arange(size, device=device)
    of_keys, of_queries = ((which[:, None] * size + places).flatten() for which in (keys, queries))
    keep_rows(block.q_proj, of_queries)
    keep_columns(block.o_proj, of_queries)
    for linear in (block.k_proj, block.v_proj):
        keep_rows(linear, of_keys)
