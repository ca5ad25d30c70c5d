"""The forecast: memory that a recipe will need, from a model's facts alone. Every figure here is predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backend.devices import free_bytes
from backend.namedfacts import named_facts
from backend.packing import HeldBytes, held_bytes
from backend.parts import pruned, weight_parts
from backend.processmemory import process_bytes
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Switch

PRECISIONS: dict[str, Recipe] = {
    "fp32": Recipe(),
    "bf16": Recipe.read({"switches": {"cast": {"dtype": "bf16"}}}),
    "int8": Recipe.read({"switches": {"int8_weight_only": {}}}),
    "int4": Recipe.read({"switches": {"int4_weight_only": {}}}),
    "int8 with the embedding": Recipe.read({"switches": {"int8_weight_only": {}, "embedding_table": {}}}),
}
BF16_COPY = 1.15  # of a matrix's own bytes, as measured


@dataclass(frozen=True)
class Forecast:
    """Predicted bytes of one lane."""

    lane: str
    device: str
    weights_bytes: int  # a draft model's included
    kv_bytes: int  # for prompt and new tokens, a draft model's included
    passing_bytes: int  # activations and logits of the longest call
    process_bytes: int  # libraries, tokenizer and buffers
    scoring_bytes: int  # the second cache and the logits that are compared
    loading_bytes: int  # most while the weights are read and transformed

    @property
    def run_bytes(self) -> int:
        """The peak of a request: what the lane's own memory is measured by."""
        return self.weights_bytes + self.kv_bytes + self.passing_bytes + self.process_bytes

    @property
    def total_bytes(self) -> int:
        """What the lane holds while it races."""
        return self.run_bytes + self.scoring_bytes


@dataclass(frozen=True)
class RaceForecast:
    """Predicted bytes of all lanes, which are resident at the same time."""

    lanes: tuple[Forecast, ...]

    def peak_bytes(self, device: str) -> int:
        """Most that is held on a device: all lanes, or all of them while the largest is still being loaded."""
        here = [lane for lane in self.lanes if lane.device == device]
        extra = max((max(0, lane.loading_bytes - lane.total_bytes) for lane in here), default=0)
        return sum(lane.total_bytes for lane in here) + extra

    def fits(self, device: str, free: int | None) -> bool:
        """Whether it fits; a device that does not say what is free is given the benefit of the doubt."""
        return free is None or self.peak_bytes(device) <= free


def float_bytes(facts: ModelFacts, recipe: Recipe) -> int:
    """Bytes of a float of the lane: 2 after a cast or on a CUDA device, else 4."""
    return 2 if recipe.on(facts).get("cast") or lane_device(facts, recipe) == "cuda" else 4


def lane_device(facts: ModelFacts, recipe: Recipe) -> str:
    """The device on which the lane will run: cpu, cuda or mps."""
    chosen = getattr(recipe.get("device"), "name", None)
    return str(chosen or facts.devices[0].split(":")[0])


def as_loaded(recipe: Recipe) -> Recipe:
    """The recipe of a model that is loaded on the same device and not changed, as a draft is."""
    return Recipe(switches={kind: switch for kind, switch in recipe.switches.items() if kind == "device"})


def draft_facts(draft: Switch, devices: tuple[str, ...]) -> ModelFacts:
    """Facts of the model that a draft switch names, on these devices.

    Raises:
        RecipeError: when it is not there.
    """
    return named_facts(str(getattr(draft, "model", "")), devices)


def held(facts: ModelFacts, recipe: Recipe) -> HeldBytes:
    """Predicted bytes of the weights by part after the recipe, without a draft model's."""
    return held_bytes(weight_parts(pruned(facts, recipe)), recipe.on(facts), float_bytes(facts, recipe))


def weights_bytes(facts: ModelFacts, recipe: Recipe) -> int:
    """Predicted bytes of the weights after the recipe, without a draft model's."""
    return round(held(facts, recipe).total)


def kv_bytes_per_token(facts: ModelFacts, recipe: Recipe) -> int:
    """Predicted bytes that one more token adds to the cache, in layers that keep it."""
    left, width = pruned(facts, recipe), float_bytes(facts, recipe)
    rates = (switch.cached_per_token(left, width) for switch in recipe.switches.values())
    return round(left.layers * next((rate for rate in rates if rate), width * left.kv_values_per_layer))


def kv_bytes(facts: ModelFacts, recipe: Recipe, tokens: int) -> int:
    """Predicted bytes of the cache after that many tokens: layers with a window keep the window only."""
    left, width = pruned(facts, recipe), float_bytes(facts, recipe)

    def a_layer(count: int) -> int:
        told = (switch.cached(left, count, width) for switch in recipe.switches.values())
        return next((held for held in told if held is not None), count * width * left.kv_values_per_layer)

    sliding = min(tokens, left.sliding_window) if left.sliding_window else tokens
    return left.sliding_layers * a_layer(sliding) + (left.layers - left.sliding_layers) * a_layer(tokens)


def forecast_lane(facts: ModelFacts, recipe: Recipe, tokens: int, lane: str = "base", prompt: int = 0) -> Forecast:
    """Predict one lane.

    Args:
        tokens: prompt and new tokens together.
        prompt: tokens of the prompt, which pass through the model in one call.
    """
    weights, kv = weights_bytes(facts, recipe), kv_bytes(facts, recipe, tokens)
    process = process_bytes(facts, recipe)
    loaded = weights if facts.held_as else width_at_load(facts, recipe) * facts.parameters
    draft = recipe.get("draft_model")
    if draft is not None:
        small = draft_facts(draft, facts.devices)
        weights += weights_bytes(small, as_loaded(recipe))
        kv += kv_bytes(small, as_loaded(recipe), tokens)
        process += process_bytes(small, as_loaded(recipe)) - process_bytes(replace(small, tokenizer_bytes=0), Recipe())
    return Forecast(
        lane=lane,
        device=lane_device(facts, recipe),
        weights_bytes=weights,
        kv_bytes=kv,
        passing_bytes=passing_bytes(facts, recipe, prompt),
        process_bytes=process,
        scoring_bytes=kv + 16 * 4 * facts.vocab,
        loading_bytes=process + loaded + (weights if recipe.switches else 0),
    )


def passing_bytes(facts: ModelFacts, recipe: Recipe, prompt: int) -> int:
    """Predicted bytes of what a prompt's call holds for a moment: activations of one layer, and a row of logits.

    Where a CPU computes in bf16, its kernels lay a copy of each matrix out anew; the largest decides.
    """
    width, left = float_bytes(facts, recipe), pruned(facts, recipe)
    one_token = 4 * left.hidden + max(4 * left.ffn, 3 * (left.heads + left.kv_heads) * left.head_dim)
    passing = prompt * width * one_token + 2 * 4 * facts.vocab
    if recipe.on(facts).get("cast") and lane_device(facts, recipe) == "cpu":
        parts = weight_parts(left)
        passing += round(BF16_COPY * width * max(parts.head, *(matrix.numel for matrix in parts.matrices)))
    return passing


def width_at_load(facts: ModelFacts, recipe: Recipe) -> int:
    """Bytes of a weight as it is loaded, before any switch."""
    return 2 if lane_device(facts, recipe) == "cuda" else 4


def tokens_of(race: Race, facts: ModelFacts) -> tuple[int, int]:
    """Tokens of the prompt and of prompt and answer; n characters are taken for n / 2 tokens, more than they have."""
    prompt = min(facts.context, len(race.prompt) // 2 + 1)
    return prompt, min(facts.context, prompt + race.max_new_tokens)


def forecast(race: Race, facts: ModelFacts) -> RaceForecast:
    """Predict the whole race."""
    prompt, total = tokens_of(race, facts)
    return RaceForecast(tuple(forecast_lane(facts, recipe, total, name, prompt) for name, recipe in race.lanes))


def check_memory(race: Race, facts: ModelFacts) -> None:
    """Refuse a race that does not fit into what is free now.

    Raises:
        RecipeError: with what it needs and what is free.
    """
    predicted = forecast(race, facts)
    for device in sorted({lane.device for lane in predicted.lanes}):
        free = free_bytes(device)
        if free is not None and not predicted.fits(device, free):
            need = predicted.peak_bytes(device)
            value = f"{facts.name} needs {need / 1e9:.1f} GB for {len(predicted.lanes)} lanes (predicted)"
            remedy = "Choose a smaller model, fewer variants or fewer bits, or end what else holds memory."
            raise RecipeError("model", value, f"at most {free / 1e9:.1f} GB free on {device}", remedy)


def precisions(facts: ModelFacts) -> dict[str, int]:
    """Predicted bytes of the weights at each precision, for the model's card before it is loaded."""
    if facts.held_as:
        return {f"as saved, {Recipe().on(facts).label}": weights_bytes(facts, Recipe())}
    on_cpu = replace(facts, devices=("cpu",))  # where a recipe without a switch is fp32
    return {name: weights_bytes(on_cpu, recipe) for name, recipe in PRECISIONS.items()}
