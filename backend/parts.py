"""The parts of a decoder's weights, counted from its facts, and what pruning leaves of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from backend.families import family
from backend.namedfacts import named_facts
from backend.recipe.facts import ModelFacts
from backend.recipe.recipe import Recipe
from backend.recipe.stores import Matrix
from backend.recipe.switches.layers import DropLayers
from backend.recipe.switches.pruning import PruneHeads, PruneNeurons
from backend.recipe.switches.trained import Trained
from backend.recipe.switches.width import PruneWidth


@dataclass(frozen=True)
class WeightParts:
    """Counts of numbers by the part they belong to."""

    embedding: int
    head: int  # of the output head; when tied it is the embedding's own; 0 for encoders, which have none
    attention: int  # matrices of all layers
    ffn: int  # matrices of all layers, experts included
    rest: int  # norms, biases, learned positions
    matrices: tuple[Matrix, ...]  # of all layers
    idle: tuple[Matrix, ...]  # those of them that belong to experts which a token does not pass through
    head_rows: int
    tied: bool
    layers: int

    @property
    def linear(self) -> int:
        """Numbers in the layers' matrices."""
        return self.attention + self.ffn

    def by_name(self) -> dict[str, int]:
        """Parameters by part; they sum to all of them. A tied head has none of its own."""
        return {
            "embedding": self.embedding,
            "attention": self.attention,
            "feed-forward": self.ffn,
            "norms and biases": self.rest,
            "head": 0 if self.tied else self.head,
        }


def weight_parts(facts: ModelFacts) -> WeightParts:
    """Count the parts; what sizes do not explain (a shared expert, say) counts as matrices of no shape."""
    attention, ffn = _attention(facts), _mlp(facts)
    held = (_numbers(attention), _numbers(ffn))
    tables = facts.embedding_parameters * (1 if facts.tied else 2)
    unexplained = max(0, facts.parameters - tables - sum(held))
    few = unexplained <= max(sum(held) // 20, 1)  # norms and biases are few; more must be matrices
    return WeightParts(
        embedding=facts.embedding_parameters,
        head=0 if facts.task == "encoder" else facts.embedding_parameters,
        attention=held[0],
        ffn=held[1] + (0 if few else unexplained),
        rest=unexplained if few else 0,
        matrices=attention + ffn if few or facts.experts > 1 else attention,
        idle=_gated(facts.hidden, facts.expert_ffn, facts.layers * (facts.experts - facts.used_experts)),
        head_rows=facts.vocab,
        tied=facts.tied,
        layers=facts.layers,
    )


def _attention(facts: ModelFacts) -> tuple[Matrix, ...]:
    """Queries, keys with values, and output."""
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    return (
        Matrix(query, facts.hidden, facts.layers),
        Matrix(key, facts.hidden, 2 * facts.layers),
        Matrix(facts.hidden, query, facts.layers),
    )


def _mlp(facts: ModelFacts) -> tuple[Matrix, ...]:
    """Up, with a gate where there is one, and down; of every expert where there are several."""
    if facts.experts > 1:
        return _gated(facts.hidden, facts.expert_ffn, facts.layers * facts.experts)
    up = family(facts.architecture).ffn_matrices - 1
    return Matrix(facts.ffn, facts.hidden, up * facts.layers), Matrix(facts.hidden, facts.ffn, facts.layers)


def _gated(hidden: int, ffn: int, count: int) -> tuple[Matrix, ...]:
    """Experts as they are held: gate and up in one matrix."""
    return (Matrix(2 * ffn, hidden, count, expert=True), Matrix(hidden, ffn, count, expert=True)) if count else ()


def _numbers(matrices: tuple[Matrix, ...]) -> int:
    return sum(matrix.count * matrix.numel for matrix in matrices)


def pruned(facts: ModelFacts, recipe: Recipe) -> ModelFacts:
    """The facts of what the recipe's pruning and its change of KV heads leave; widths that differ by their mean.

    Raises:
        RecipeError: for a trained model that is not there.
    """
    after = facts
    if isinstance(trained := recipe.get("trained"), Trained) and trained.name:
        after = named_facts(trained.name, facts.devices)
    if isinstance(layers := recipe.get("drop_layers"), DropLayers):
        after = _without_layers(after, layers.lost_of(after.layers))
    if isinstance(heads := recipe.get("prune_heads"), PruneHeads):
        after = _without_heads(after, heads)
    if isinstance(neurons := recipe.get("prune_neurons"), PruneNeurons):
        after = _resized(after, ffn=max(1, neurons.kept(after.ffn, after.layers)))
    if isinstance(width := recipe.get("prune_width"), PruneWidth):
        after = _narrower(after, max(1, width.kept(after.hidden)))
    if switch := recipe.get("kv_heads"):
        after = _resized(after, kv_heads=min(after.kv_heads, int(_number(switch, "count"))))
    for one in recipe.pipeline:
        if sizes := one.resize(after):
            after = _resized(after, **sizes)
    return after


def _without_heads(facts: ModelFacts, switch: PruneHeads) -> ModelFacts:
    units = facts.kv_heads if facts.kv_heads > 1 else facts.heads
    lost = switch.lost_of_all([units] * facts.layers) / max(1, facts.layers)
    kept = max(1, round(units - lost))
    return _resized(facts, heads=facts.heads * kept // units, kv_heads=kept if facts.kv_heads > 1 else 1)


def _narrower(facts: ModelFacts, hidden: int) -> ModelFacts:
    """Fewer dimensions of the residual stream: matrices, tables and norms."""
    tables = 1 if facts.tied else 2
    rest = facts.parameters - _numbers(_attention(facts) + _mlp(facts)) - tables * facts.embedding_parameters
    table = facts.embedding_parameters * hidden // facts.hidden
    after = replace(facts, hidden=hidden, embedding_parameters=table)
    whole = _numbers(_attention(after) + _mlp(after)) + tables * table + max(0, rest) * hidden // facts.hidden
    return replace(after, parameters=whole)


def _number(switch: object, name: str) -> float:
    return float(getattr(switch, name))


def _resized(facts: ModelFacts, **sizes: Any) -> ModelFacts:
    """The facts with other sizes, and as many parameters fewer."""
    after = replace(facts, **sizes)
    fewer = _numbers(_attention(facts) + _mlp(facts)) - _numbers(_attention(after) + _mlp(after))
    return replace(after, parameters=facts.parameters - fewer)


def _without_layers(facts: ModelFacts, count: float) -> ModelFacts:
    left = max(0, facts.layers - int(count))
    tables = facts.embedding_parameters * (1 if facts.tied else 2)
    body = (facts.parameters - tables) * left // facts.layers
    return replace(
        facts,
        layers=left,
        parameters=tables + body,
        sliding_layers=facts.sliding_layers * left // facts.layers,
    )
