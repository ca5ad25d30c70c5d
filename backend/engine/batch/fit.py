"""Whether a model, as its recipe has made it, can serve many requests at once."""

from __future__ import annotations

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from backend.recipe.base import RecipeError
from backend.techniques.base import Subject


def check_fit(subject: Subject) -> None:
    """Refuse what decodes in a way of its own: a batch decodes by the model's own call, in a cache of its own.

    Raises:
        RecipeError: naming what stands in the way.
    """
    plan = subject.plan
    for asked, field, why in (
        (plan.proposer, "draft", "no draft: each request would have its own number of tokens to verify in a step"),
        (plan.make_cache, "cache", "no cache switch: a batch keeps keys and values in slots of its own"),
        (plan.forward, "compile", "no compiled step: it was compiled for one token of one request"),
    ):
        if asked is not None:
            raise RecipeError(f"switches.{field}", "on", why, "Switch it off to serve.")
    name = subject.model.config.get_text_config(decoder=True)._attn_implementation
    if name != "sdpa":
        allowed = "sdpa: a batch attends by torch's scaled_dot_product_attention"
        raise RecipeError("switches.attention_kernel", name, allowed, "Switch it off to serve.")
    layers = DynamicCache(config=subject.model.config).layers
    if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        allowed = "a model of attention layers only"
        raise RecipeError("model", type(subject.model).__name__, allowed, "Choose another model to serve.")
