"""Several candidates in one call: what each may attend to, where it stands, and what stays of them in the cache.

Miao et al. 2024 (SpecInfer), section 4: the guesses of a tree stand one behind the other in the call; each attends to
the text and to its own ancestors only, and has the position of its depth. So every row of logits is the one that a
call with that row's own text would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from backend.recipe.base import RecipeError
from backend.techniques.base import Subject

MASKED = ("eager", "sdpa")  # attention, by how its name begins, that adds the mask it is given to the scores
TRIAL = ([1, 2, 3, 4], [-1, -1, 0, 1])  # two candidates, and one that follows each
OFF = "Set branches to 1, or switch off what stands in its way."


def tree_inputs(model: PreTrainedModel, cache: Cache, parents: Sequence[int]) -> dict[str, Any]:
    """The mask and the positions of a call with the last token and the guesses behind it.

    Returns:
        `attention_mask` (1, 1, n + 1, K), added to the scores, one by layer type where the model's layers differ, and
        `position_ids` (1, n + 1).
    """
    depths = [0]
    kin = torch.eye(len(parents) + 1, dtype=torch.bool)  # (n + 1, n + 1): itself and its ancestors
    for index, parent in enumerate(parents, 1):
        kin[index] |= kin[parent + 1]
        depths.append(depths[parent + 1] + 1)
    positions = torch.tensor(depths) + cache.get_seq_length()
    masks = {}
    for layer in _by_type(cache).values():
        name = "sliding_attention" if layer.is_sliding else "full_attention"
        masks[name] = _mask(layer, positions, kin).to(model.device, model.dtype)
    mask = masks if len(masks) > 1 else next(iter(masks.values()))
    return {"attention_mask": mask, "position_ids": positions[None].to(model.device)}


def keep_path(cache: Cache, fed: int, kept: Sequence[int]) -> None:
    """Move the `kept` of the last `fed` tokens to the front of those; what is behind them can then be cropped."""
    if list(kept) == list(range(len(kept))):
        return
    for layer in list[Any](cache.layers):
        for states in (layer.keys, layer.values):  # (B, H, T, D)
            tail = states[..., -fed:, :]
            tail[..., : len(kept), :] = tail[..., list(kept), :]


def check_tree(subject: Subject, field: str) -> None:
    """Refuse a model, a cache or a kernel that cannot verify a tree; tried on four guesses after four tokens.

    Raises:
        RecipeError: naming `field`, with what stands in the way.
    """
    model = subject.model
    kernel = str(model.config._attn_implementation)
    if not kernel.startswith(MASKED):
        raise RecipeError(field, f"attention by {kernel}", f"attention by {' or '.join(MASKED)} for a tree", OFF)
    make = subject.plan.make_cache
    cache = make(16) if make else DynamicCache(config=model.config)
    if other := {type(layer).__name__ for layer in cache.layers} - {"DynamicLayer", "DynamicSlidingWindowLayer"}:
        allowed = "a growing cache, from which the accepted branch can be gathered"
        raise RecipeError(field, f"a cache of {', '.join(sorted(other))}", allowed, OFF)
    try:
        apart = _trial(model, cache)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        why = str(error).strip().split("\n")[0][:120]
        raise RecipeError(field, type(model).__name__, f"a model that takes a tree's mask ({why})", OFF) from None
    if apart > 0.05:
        raise RecipeError(field, type(model).__name__, "a model that heeds the mask of a tree", OFF)


@torch.inference_mode()
def _trial(model: PreTrainedModel, cache: Cache) -> float:
    """How far a tree's logits are from those of whole texts, relative to the largest."""
    tokens, parents = TRIAL
    cache.activate_past_recording()
    ids = torch.tensor([[5, 6, 7, 8]], device=model.device)
    model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
    cache.crop(0)
    fed = torch.tensor([[9, *tokens]], device=model.device)
    logits = model(input_ids=fed, cache=cache, use_cache=True, **tree_inputs(model, cache, parents)).logits[0]
    worst = 0.0
    for row, way in ((3, [9, 1, 3]), (4, [9, 2, 4])):
        whole = torch.cat([ids, torch.tensor([way], device=model.device)], 1)
        expected = model(input_ids=whole, use_cache=False, logits_to_keep=1).logits[0, -1].float()
        worst = max(worst, float((logits[row].float() - expected).abs().max() / expected.abs().max().clamp_min(1e-6)))
    return worst


def _by_type(cache: Cache) -> dict[bool, Any]:
    """The first layer of each type that the cache has, by whether it slides."""
    found: dict[bool, Any] = {}
    for layer in list[Any](cache.layers):
        found.setdefault(layer.is_sliding, layer)
    return found


def _mask(layer: DynamicLayer, positions: Tensor, kin: Tensor) -> Tensor:
    """What is added to the scores (1, 1, n + 1, K) of a layer: 0, or the least number there is."""
    fed = len(positions)
    length, offset = layer.get_mask_sizes(fed)
    places = torch.cat([torch.arange(offset, offset + length - fed), positions])  # of the keys (K,)
    seen = torch.cat([torch.ones(fed, length - fed, dtype=torch.bool), kin], 1)
    if isinstance(layer, DynamicSlidingWindowLayer):
        seen &= positions[:, None] - places < layer.sliding_window
    least = torch.finfo(torch.bfloat16).min  # in float16 -inf, which is as good: every row attends to itself
    return torch.zeros(1, 1, fed, length).masked_fill(~seen, least)
