"""Attention as weights: who looks at whom, computed eagerly and off every clock, a layer at a time."""

from __future__ import annotations

import base64
import zlib
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from backend.engine.text import Pieces
from backend.techniques.anatomy import text_config
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.activity import eager, spread

MOST_TOKENS = 128
MOST_BYTES = 4 << 20  # of all maps of a lane, a byte a weight


def map_tokens(subject: Subject, prompt: list[int]) -> int:
    """How many of the prompt's first tokens are looked at. What follows them cannot change their attention."""
    config = text_config(subject.model)
    maps = int(config.num_hidden_layers) * int(config.num_attention_heads)
    return min(len(prompt), MOST_TOKENS, isqrt(MOST_BYTES // maps))


@torch.inference_mode()
def attention_weights(subject: Subject, ids: list[int]) -> list[Tensor]:
    """The attention weights of every layer, (H, T, T) float16: row i is what token i looks at and sums to 1.

    Empty for a model whose attention does not give its weights away.
    """
    found: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.dim() == 4:
            found.append(weights[0].to("cpu", torch.float16))

    try:
        blocks = [block for layer in decoder_layers(subject.model) if (block := getattr(layer, "self_attn", None))]
    except TypeError:
        blocks = []
    with eager(subject):
        handles = [block.register_forward_hook(keep) for block in blocks]
        try:
            inputs = torch.tensor([ids], device=subject.device)
            subject.model(input_ids=inputs, use_cache=False, logits_to_keep=1)
        finally:
            for handle in handles:
                handle.remove()
    return found if len(found) == len(blocks) else []


def head_facts(weights: Tensor) -> dict[str, list[float]]:
    """What each head of a layer (H, T, T) does, means over the tokens after the first.

    Returns:
        `entropy` of the row over the logarithm of how many tokens may be seen, 0 (one token) to 1 (all alike);
        `first` the weight on the first token; `previous` the weight on the token before.
    """
    rows = weights.float()[:, 1:]  # (H, T - 1, T)
    if not rows.shape[1]:
        nothing = [0.0] * len(weights)
        return {"entropy": nothing, "first": nothing, "previous": nothing}
    entropy = spread(weights.float())  # (H, T - 1)
    previous = weights.float().diagonal(offset=-1, dim1=1, dim2=2)  # (H, T - 1)
    means = {"entropy": entropy.mean(-1), "first": rows[:, :, 0].mean(-1), "previous": previous.mean(-1)}
    return {name: [round(value, 4) for value in mean.tolist()] for name, mean in means.items()}


def packed_map(weights: Tensor) -> str:
    """The weights (H, T, T) in 256 steps, a byte each, deflated, in base64; see `inspection.unpack_map`."""
    steps = (weights.float() * 255).round().clamp_(0, 255).to(torch.uint8)
    return base64.b64encode(zlib.compress(steps.contiguous().numpy().tobytes(), 6)).decode("ascii")


def token_texts(subject: Subject, ids: list[int]) -> list[str]:
    """The text of each token, as it stands in the prompt."""
    pieces = Pieces(subject, [])
    return [pieces.add(token)[:24] for token in ids]
