"""The parts of a decoder's weights, counted from its facts, and what pruning leaves of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from backend.recipe.facts import ModelFacts
from backend.recipe.recipe import Recipe


@dataclass(frozen=True)
class WeightParts:
    """Counts of numbers by the part they belong to."""

    embedding: int
    head: int  # of the output head; when tied it is the embedding's own
    linear: int  # of the layers' matrices
    rest: int  # norms and biases
    rows: int  # output channels of the layers' matrices
    head_rows: int
    tied: bool


def weight_parts(facts: ModelFacts) -> WeightParts:
    """Count the parts; what the sizes do not explain (experts, for example) counts as matrices."""
    attention, ffn = _matrices(facts)
    tables = facts.embedding_parameters * (1 if facts.tied else 2)
    explained = facts.layers * (attention + ffn)
    unexplained = max(0, facts.parameters - tables - explained)
    few = unexplained <= max(explained // 20, 1)  # norms and biases are few; more must be matrices
    rows = facts.head_dim * (facts.heads + 2 * facts.kv_heads) + 2 * facts.hidden + 2 * facts.ffn
    return WeightParts(
        embedding=facts.embedding_parameters,
        head=facts.embedding_parameters,
        linear=explained + (0 if few else unexplained),
        rest=unexplained if few else 0,
        rows=facts.layers * rows,
        head_rows=facts.vocab,
        tied=facts.tied,
    )


def _matrices(facts: ModelFacts) -> tuple[int, int]:
    """Numbers in one layer's attention and in its gated MLP."""
    attention = 2 * facts.hidden * facts.head_dim * (facts.heads + facts.kv_heads)
    return attention, 3 * facts.hidden * facts.ffn


def pruned(facts: ModelFacts, recipe: Recipe) -> ModelFacts:
    """The facts of what the recipe's pruning and its change of KV heads leave."""
    after = facts
    if switch := recipe.get("drop_layers"):
        after = _without_layers(after, _number(switch, "count"))
    if switch := recipe.get("prune_heads"):
        units = after.kv_heads if after.kv_heads > 1 else after.heads
        kept = max(1, units - round(_number(switch, "ratio") * units))
        kv_heads = kept if after.kv_heads > 1 else 1
        after = _resized(after, heads=after.heads * kept // units, kv_heads=kv_heads)
    if switch := recipe.get("prune_neurons"):
        after = _resized(after, ffn=max(1, round(after.ffn * (1 - _number(switch, "ratio")))))
    if switch := recipe.get("kv_heads"):
        after = _resized(after, kv_heads=min(after.kv_heads, int(_number(switch, "count"))))
    return after


def _number(switch: object, name: str) -> float:
    return float(getattr(switch, name))


def _resized(facts: ModelFacts, **sizes: Any) -> ModelFacts:
    """The facts with other sizes, and as many parameters fewer."""
    after = replace(facts, **sizes)
    fewer = facts.layers * (sum(_matrices(facts)) - sum(_matrices(after)))
    return replace(after, parameters=facts.parameters - fewer)


def _without_layers(facts: ModelFacts, count: float) -> ModelFacts:
    left = max(0, facts.layers - int(count))
    tables = facts.embedding_parameters * (1 if facts.tied else 2)
    body = (facts.parameters - tables) * left // facts.layers
    sliding = facts.sliding_layers * left // facts.layers
    return replace(facts, layers=left, parameters=tables + body, sliding_layers=sliding)
