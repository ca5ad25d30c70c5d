"""What caches of keys and values need of a model: that it caches these and nothing else."""

from __future__ import annotations

from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from backend.recipe.base import RecipeError


def attention_layers(model: PreTrainedModel, kind: str) -> None:
    """Refuse a model that caches something else than keys and values in any layer.

    Raises:
        RecipeError: naming the switch `kind`.
    """
    layers = DynamicCache(config=model.config).layers
    if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        allowed, remedy = "a model of attention layers only", "Switch it off."
        raise RecipeError(f"switches.{kind}", type(model).__name__, allowed, remedy)
