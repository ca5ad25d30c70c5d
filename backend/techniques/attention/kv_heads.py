"""Fewer key-value heads: the heads of a group replaced by their mean, as in GQA and MQA."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import KVHeads
from backend.techniques.anatomy import attentions, pass_one_token, text_config
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique


@technique(KVHeads)
class KVHeadPooling:
    """Mean pooling of k and v projections within groups of neighbours (Ainslie et al. 2023).

    Query heads stay as they are. Norms of keys (Gemma 3, Qwen 3) work on one head and so stay too.
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
        subject.notes[switch.kind] = {"kv_values": pass_one_token(subject.model).kv_values}
        for block in blocks:
            for linear in (block.k_proj, block.v_proj):
                pool(linear, before, switch.count)
            block.num_key_value_groups = heads // switch.count
            if hasattr(block, "num_key_value_heads"):
                block.num_key_value_heads = switch.count
        config.num_key_value_heads = switch.count

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
            },
        )


def pool(linear: nn.Linear, before: int, after: int) -> None:
    """Replace the outputs of `before` heads by the means of `after` groups of neighbours, in place."""

    def mean(rows: Tensor) -> nn.Parameter:
        # (before * head_dim, ...) -> (after, group, head_dim, ...) -> (after * head_dim, ...)
        grouped = rows.detach().reshape(after, before // after, -1, *rows.shape[1:])
        return nn.Parameter(grouped.mean(1, dtype=torch.float32).to(rows.dtype).flatten(0, 1), rows.requires_grad)

    linear.weight = mean(linear.weight)
    if linear.bias is not None:
        linear.bias = mean(linear.bias)
    linear.out_features = linear.weight.shape[0]
