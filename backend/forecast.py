"""The forecast: memory that a recipe will need, from a model's facts alone. Every figure here is predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backend.catalog import model_facts, resolve
from backend.devices import free_bytes
from backend.parts import WeightParts, pruned, weight_parts
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe

PROCESS_BYTES = 300 * 2**20  # a lane's own libraries and buffers, whatever the model
PRECISIONS: dict[str, Recipe] = {
    "fp32": Recipe(),
    "bf16": Recipe.read({"switches": {"cast": {"dtype": "bf16"}}}),
    "int8": Recipe.read({"switches": {"int8_weight_only": {}}}),
    "int4": Recipe.read({"switches": {"int4_weight_only": {}}}),
}


@dataclass(frozen=True)
class Forecast:
    """Predicted bytes of one lane."""

    lane: str
    device: str
    weights_bytes: int  # a draft model's included
    kv_bytes: int  # for prompt and new tokens, a draft model's included
    working_bytes: int  # activations, logits, the second cache for scoring, the process
    loading_bytes: int  # most while the weights are read and transformed

    @property
    def total_bytes(self) -> int:
        """What the lane holds while it runs."""
        return self.weights_bytes + self.kv_bytes + self.working_bytes


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
    return 2 if recipe.get("cast") or lane_device(facts, recipe) == "cuda" else 4


def lane_device(facts: ModelFacts, recipe: Recipe) -> str:
    """The device on which the lane will run: cpu, cuda or mps."""
    chosen = getattr(recipe.get("device"), "name", None)
    return str(chosen or facts.devices[0].split(":")[0])


def weights_bytes(facts: ModelFacts, recipe: Recipe) -> int:
    """Predicted bytes of the weights after the recipe, without a draft model's."""
    parts = weight_parts(pruned(facts, recipe))
    width = float_bytes(facts, recipe)
    body, head = _packed(parts, recipe, width)
    return round(body + head + width * (parts.embedding + parts.rest))


def _packed(parts: WeightParts, recipe: Recipe, width: int) -> tuple[float, float]:
    """Bytes of the linear layers and of the head. A tied head that is packed is a second copy of the embedding."""
    kept_head = 0.0 if parts.tied else float(width * parts.head)
    int8 = parts.linear + 8.0 * parts.rows, parts.head + 8.0 * parts.head_rows  # a scale a row
    if recipe.get("int8_dynamic"):
        return int8
    if weight_only := recipe.get("int8_weight_only"):
        return int8[0], kept_head if getattr(weight_only, "head", "int8") == "keep" else int8[1]
    if weight_only := recipe.get("int4_weight_only"):
        each = 0.5 + 4 / getattr(weight_only, "group_size", 32)  # two codes a byte; bf16 scale and zero a group
        heads = {"keep": kept_head, "int8": int8[1], "int4": each * parts.head}
        return each * parts.linear, heads[getattr(weight_only, "head", "int8")]
    if recipe.get("bnb_int8"):
        return int8[0], kept_head
    if four_bit := recipe.get("bnb_4bit"):
        scales = 1 / 64 + 4 / (64 * 256) if getattr(four_bit, "double_quant", False) else 4 / 64  # fp32 a block of 64
        return (0.5 + scales) * parts.linear, kept_head
    return float(width * parts.linear), kept_head


def kv_bytes_per_token(facts: ModelFacts, recipe: Recipe) -> int:
    """Predicted bytes that one more token adds to the cache, in layers that keep it."""
    return pruned(facts, recipe).kv_values_per_token * float_bytes(facts, recipe)


def kv_bytes(facts: ModelFacts, recipe: Recipe, tokens: int) -> int:
    """Predicted bytes of the cache after that many tokens: layers with a window keep the window only."""
    left = pruned(facts, recipe)
    if left.layers == 0:
        return 0
    a_layer = kv_bytes_per_token(facts, recipe) // left.layers
    window = getattr(recipe.get("window_cache"), "window", None)
    every = min(tokens, window) if window else tokens
    sliding = min(every, left.sliding_window) if left.sliding_window else every
    return a_layer * (left.sliding_layers * sliding + (left.layers - left.sliding_layers) * every)


def forecast_lane(facts: ModelFacts, recipe: Recipe, tokens: int, lane: str = "base", prompt: int = 0) -> Forecast:
    """Predict one lane.

    Args:
        tokens: prompt and new tokens together.
        prompt: tokens of the prompt, which pass through the model in one call.
    """
    weights, kv = weights_bytes(facts, recipe), kv_bytes(facts, recipe, tokens)
    width = float_bytes(facts, recipe)
    activations = prompt * width * (8 * facts.hidden + 3 * facts.ffn + 2 * facts.heads * facts.head_dim)
    logits = 16 * 4 * facts.vocab
    loaded = width_at_load(facts, recipe) * facts.parameters
    draft = recipe.get("draft_model")
    if draft is not None:
        small = model_facts(resolve(draft.model))  # type: ignore[attr-defined]
        weights += small.parameters * width
        kv += kv_bytes(small, Recipe(), tokens)
    return Forecast(
        lane=lane,
        device=lane_device(facts, recipe),
        weights_bytes=weights,
        kv_bytes=kv,
        working_bytes=PROCESS_BYTES + activations + logits + kv,
        loading_bytes=PROCESS_BYTES + loaded + (weights if recipe.switches else 0),
    )


def width_at_load(facts: ModelFacts, recipe: Recipe) -> int:
    """Bytes of a weight as it is loaded, before any switch."""
    return 2 if lane_device(facts, recipe) == "cuda" else 4


def forecast(race: Race, facts: ModelFacts) -> RaceForecast:
    """Predict the whole race; a prompt of n characters is taken for n / 2 tokens, which is more than it has."""
    prompt = min(facts.context, len(race.prompt) // 2 + 1)
    total = min(facts.context, prompt + race.max_new_tokens)
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
    on_cpu = replace(facts, devices=("cpu",))  # where a recipe without a switch is fp32
    return {name: weights_bytes(on_cpu, recipe) for name, recipe in PRECISIONS.items()}
