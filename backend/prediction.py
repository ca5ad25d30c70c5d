"""The prediction: all that is forecast of a lane or of a whole race, as plain data for a page, a journal or a file.

    lane:  {"lane", "label", "device", "parameters": {part: count}, "active_parameters", "weights_bytes",
            "kv_bytes_per_token", "fits_tokens"|None (in free memory, see room.py; of a race's lanes only),
            "context" (tokens of the ceiling), "tokens" (of the memory: prompt and answer), "kv_bytes",
            "loading_bytes", "run_bytes" (peak of a request), "moved_bytes", "round_tokens" (see ceiling.Round),
            "bandwidth_bytes_per_s"|None, "tokens_per_s"|None, "prompt_tokens", "prefill_flops", "prefill_s"|None}
    race:  {"model", "architecture", "parameters", "context", "prompt_tokens", "precisions": {name: bytes},
            "lanes": {name: lane}, "ratios": {name: of the ceilings}, "here": {...}|None,
            "elsewhere": [{"machine", "sort", "bandwidth_bytes_per_s", "source",
                           "lanes": {name: {"tokens_per_s", "prefill_s", "reason"}}}]}

None stands where this machine has not been measured yet. Bytes, seconds and speeds are all predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.ceiling import compute_type, decode_ceiling, decode_round, elsewhere, prefill_flops, prefill_s
from backend.devices import free_bytes
from backend.families import FAMILIES
from backend.forecast import forecast_lane, kv_bytes_per_token, lane_device, precisions
from backend.known_machines import KNOWN_MACHINES, KnownMachine
from backend.machine import Machine
from backend.modelconfig import short_name
from backend.modelref import bad_model
from backend.parts import pruned, weight_parts
from backend.recipe.facts import ModelFacts
from backend.recipe.recipe import Recipe
from backend.room import longest_that_fits

Lanes = Sequence[tuple[str, Recipe]]


def predict_lane(
    facts: ModelFacts, recipe: Recipe, lane: str, prompt: int, tokens: int, context: int, machine: Machine | None
) -> dict[str, Any]:
    """One lane.

    Args:
        prompt: tokens of the prompt.
        tokens: prompt and answer together, for memory.
        context: tokens in the cache at the step whose ceiling is asked for.
        machine: this machine; a lane on another device than it was measured on gets no speeds.
    Raises:
        RecipeError: for a draft model that is not there.
    """
    memory = forecast_lane(facts, recipe, tokens, lane, prompt)
    one = decode_round(facts, recipe, context)
    left = pruned(facts, recipe)
    parts = weight_parts(left)
    found: dict[str, Any] = {
        "lane": lane,
        "label": recipe.label,
        "device": memory.device,
        "parameters": parts.by_name(),
        "active_parameters": left.parameters - left.idle_parameters,
        "weights_bytes": memory.weights_bytes,
        "kv_bytes_per_token": kv_bytes_per_token(facts, recipe),
        "context": context,
        "tokens": tokens,
        "kv_bytes": memory.kv_bytes,
        "loading_bytes": memory.loading_bytes,
        "run_bytes": memory.run_bytes,
        "moved_bytes": one.moved_bytes,
        "round_tokens": one.tokens,
        "prompt_tokens": prompt,
        "prefill_flops": prefill_flops(facts, recipe, prompt),
        "compute_type": compute_type(facts, recipe),
        "bandwidth_bytes_per_s": None,
        "tokens_per_s": None,
        "prefill_s": None,
    }
    if machine is None or not machine.device.startswith(lane_device(facts, recipe)):
        return found
    bandwidth = machine.bandwidth_bytes_per_s
    return found | {
        "bandwidth_bytes_per_s": bandwidth(one.moved_bytes),
        "tokens_per_s": decode_ceiling(one, bandwidth),
        "prefill_s": prefill_s(facts, recipe, prompt, bandwidth, machine.flops_per_s),
    }


def predict_race(facts: ModelFacts, lanes: Lanes, prompt: int, context: int, machine: Machine | None) -> dict[str, Any]:
    """All lanes side by side, the baseline first, here and on known machines.

    Raises:
        RecipeError: for an architecture whose parts are not known, a recipe that the model refuses, or a missing draft.
    """
    require_family(facts)
    for _, recipe in lanes:
        recipe.check(facts)
    found = {name: predict_lane(facts, recipe, name, prompt, context, context, machine) for name, recipe in lanes}
    free = {device: free_bytes(device) for device in {lane["device"] for lane in found.values()}}
    for name, recipe in lanes:
        room = free[found[name]["device"]]
        found[name]["fits_tokens"] = None if room is None else longest_that_fits(facts, recipe, prompt, room)
    return {
        "model": facts.name,
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "context": context,
        "prompt_tokens": prompt,
        "precisions": precisions(facts),
        "lanes": found,
        "ratios": {name: ceiling_ratio(facts, recipe, lanes[0][1], context) for name, recipe in lanes[1:]},
        "here": _here(machine),
        "elsewhere": [_elsewhere(facts, lanes, prompt, context, machine) for machine in KNOWN_MACHINES],
    }


def require_family(facts: ModelFacts) -> None:
    """Refuse to split an architecture into parts whose build is not known.

    Raises:
        RecipeError: with the families that are.
    """
    if facts.architecture not in FAMILIES:
        value = f"{short_name(facts.name)}: model_type is {facts.architecture}"
        remedy = "Choose a model of one of these families, or race it: what it needs is then measured."
        raise bad_model(value, f"a model_type whose parts are known: {', '.join(FAMILIES)}", remedy)


def ceiling_ratio(facts: ModelFacts, recipe: Recipe, base: Recipe, context: int) -> float | None:
    """How many times the baseline's decode ceiling; None where the two run on different devices.

    Raises:
        RecipeError: for a draft model that is not there.
    """
    if lane_device(facts, recipe) != lane_device(facts, base):
        return None
    return decode_round(facts, base, context).bytes_per_token / decode_round(facts, recipe, context).bytes_per_token


def _here(machine: Machine | None) -> dict[str, Any] | None:
    if machine is None:
        return None
    return {
        "device": machine.device,
        "threads": machine.threads,
        "memory_bytes_per_s": machine.memory_bytes_per_s,
        "reads": [list(pair) for pair in machine.reads],
        "flops_per_s": dict(machine.flops_per_s),
    }


def _elsewhere(facts: ModelFacts, lanes: Lanes, prompt: int, context: int, machine: KnownMachine) -> dict[str, Any]:
    told = {}
    for name, recipe in lanes:
        there = elsewhere(facts, recipe, context, prompt, machine)
        told[name] = {"tokens_per_s": there.tokens_per_s, "prefill_s": there.prefill_s, "reason": there.reason}
    return {
        "machine": machine.name,
        "sort": machine.sort,
        "bandwidth_bytes_per_s": machine.bandwidth_bytes_per_s,
        "source": machine.source,
        "lanes": told,
    }
