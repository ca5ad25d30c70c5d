"""The ceiling: how fast a lane can be at most, from what no kernel can leave out. Every figure here is predicted.

Decode at batch 1: each token reads every weight once (of the embedding's table only its row) and the keys and values
of the context, so tokens/s = bandwidth / bytes that must move a token. A draft's rounds read the draft once a guess
and the model once, and give a token more than was guessed where every guess is right.
Prefill: 2 operations a parameter and token (the head sees the last token only; scores of attention left out), so
seconds = operations / peak, or bytes / bandwidth where that is longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from backend.forecast import as_loaded, draft_facts, float_bytes, held, kv_bytes, lane_device
from backend.known_machines import KnownMachine
from backend.parts import pruned, weight_parts
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.recipe import Recipe

Bandwidth = Callable[[float], float]  # bytes that are read again and again -> bytes a second


@dataclass(frozen=True)
class Round:
    """One round of decoding: what must be read for it, and the most tokens that it can give."""

    moved_bytes: float
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """What must move for a token at best."""
        return self.moved_bytes / self.tokens


def step_bytes(facts: ModelFacts, recipe: Recipe, context: int) -> float:
    """Bytes that a call for one token must read: weights, a row of the embedding, keys and values of the context."""
    stored, width = held(facts, recipe), float_bytes(facts, recipe)
    row = width * facts.hidden
    table = stored.embedding if facts.tied and not stored.head else row  # the head reads all of the table
    return stored.body - stored.idle + stored.head + stored.rest + table + kv_bytes(facts, recipe, context)


def decode_round(facts: ModelFacts, recipe: Recipe, context: int) -> Round:
    """A round at this context, every guess right where a proposer guesses.

    Raises:
        RecipeError: for a draft model that is not there.
    """
    whole = step_bytes(facts, recipe, context)
    if draft := recipe.get("draft_model"):
        guesses = int(getattr(draft, "tokens", 1))
        small = draft_facts(draft, facts.devices)
        return Round(whole + guesses * step_bytes(small, as_loaded(recipe), context), guesses + 1)
    if lookup := recipe.get("prompt_lookup"):
        return Round(whole, int(getattr(lookup, "tokens", 1)) + 1)
    if own := recipe.get("self_draft"):
        guesses = int(getattr(own, "tokens", 1))
        return Round(whole, guesses + 1)  # what its layers read to guess is left out: a ceiling may be too high only
    return Round(whole, 1)


def decode_ceiling(one: Round, bandwidth: Bandwidth) -> float:
    """Tokens a second that no kernel exceeds on a machine of this bandwidth."""
    return bandwidth(one.moved_bytes) / one.bytes_per_token


def prefill_flops(facts: ModelFacts, recipe: Recipe, tokens: int) -> float:
    """Operations for a prompt of so many tokens, of which the head sees the last."""
    left = pruned(facts, recipe)
    parts = weight_parts(left)
    multiplied = (parts.linear - left.idle_parameters) * (1 - recipe.skipped)
    return 2.0 * tokens * multiplied + 2.0 * parts.head


def compute_type(facts: ModelFacts, recipe: Recipe) -> str:
    """The number type in which long calls multiply, by its name in torch."""
    said = (switch.multiplies for switch in recipe.on(facts).switches.values())
    usual = "bfloat16" if lane_device(facts, recipe) == "cuda" else "float32"
    return next(filter(None, said), usual)


def prefill_s(
    facts: ModelFacts, recipe: Recipe, tokens: int, bandwidth: Bandwidth, flops_per_s: Mapping[str, float]
) -> float:
    """Seconds that reading a prompt takes at least."""
    moved = step_bytes(facts, recipe, tokens)
    peak = flops_per_s.get(compute_type(facts, recipe)) or max(flops_per_s.values())
    return max(prefill_flops(facts, recipe, tokens) / peak, moved / bandwidth(moved))


@dataclass(frozen=True)
class Elsewhere:
    """A lane on a machine that is not here: figures, or the reason why there are none."""

    machine: KnownMachine
    tokens_per_s: float | None
    prefill_s: float | None
    reason: str = ""


def elsewhere(facts: ModelFacts, recipe: Recipe, context: int, prompt: int, machine: KnownMachine) -> Elsewhere:
    """The ceilings on a known machine, where a model is loaded as it would be there: bf16 on a GPU, fp32 elsewhere."""
    if facts.packed and machine.sort == "GPU":
        return Elsewhere(machine, None, None, "not there: it was saved for a CPU's kernels")
    there = replace(facts, devices=("cuda", "cpu") if machine.sort == "GPU" else ("cpu",))
    moved = Recipe(switches={kind: switch for kind, switch in recipe.switches.items() if kind != "device"})
    try:
        moved.check(there)
        one = decode_round(there, moved, context)
    except RecipeError as error:
        return Elsewhere(machine, None, None, f"not there: {error.allowed}")
    need = held(there, moved).total + kv_bytes(there, moved, context)
    if machine.memory_bytes and need > machine.memory_bytes:
        return Elsewhere(machine, None, None, "does not fit into its memory")

    def bandwidth(size: float) -> float:
        return machine.bandwidth_bytes_per_s

    read_s = None
    if machine.flops_per_s:
        read_s = prefill_s(there, moved, prompt, bandwidth, {"bfloat16": machine.flops_per_s})
    return Elsewhere(machine, decode_ceiling(one, bandwidth), read_s)
