"""Head importance: how much the loss would move if a head were turned down, by its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.recipe.base import RecipeError
from backend.techniques.anatomy import attentions, head_widths, text_config
from backend.techniques.base import Subject
from backend.techniques.quantize.layers import linear_like

WINDOW = 64  # tokens of one text
TEXTS = 4


def why_not(subject: Subject) -> str:
    """Why no gradient can be taken, or ''."""
    packed = [name for name, layer in linear_like(subject.model).items() if type(layer) is not nn.Linear]
    if packed:
        return f"no gradient passes through packed layers such as {packed[0]}"
    if any(parameter.is_inference() for parameter in subject.model.parameters()):
        return "its weights were made for inference alone"
    try:
        blocks = attentions(subject.model, "inspection")
    except RecipeError as error:
        return f"its heads are not where they are known to be: {error.allowed} is needed"
    return "its layers have unequal numbers of heads" if len({head_widths(block) for block in blocks}) > 1 else ""


def texts(ids: list[int]) -> list[list[int]]:
    """The texts that importance is measured on: windows of 64 tokens, four at most."""
    found = [ids[start : start + WINDOW] for start in range(0, TEXTS * WINDOW, WINDOW)]
    return [text for text in found if len(text) > 8]


def head_gradients(subject: Subject, ids: list[int]) -> list[list[float]]:
    """|dL / d gate| of every head on one text, L x H, where a gate of 1 stands before the output projection.

    L is the mean negative log-likelihood in nats a token. Means over texts are the importance of Michel et al. 2019,
    'Are Sixteen Heads Really Better than One', equation 2, without their division by each layer's norm.
    """
    blocks: list[Any] = attentions(subject.model, "inspection")
    heads = int(text_config(subject.model).num_attention_heads)
    gates = torch.ones(len(blocks), heads, device=subject.device, requires_grad=True)

    def gated(layer: int) -> Any:
        def apply(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            parts = args[0].unflatten(-1, (heads, -1))  # (B, T, H, d)
            return ((parts * gates[layer, :, None].to(parts.dtype)).flatten(-2),)

        return apply

    handles = [block.o_proj.register_forward_pre_hook(gated(layer)) for layer, block in enumerate(blocks)]
    inputs = torch.tensor([ids], device=subject.device)
    try:
        with torch.enable_grad():
            logits = subject.model(input_ids=inputs, use_cache=False).logits[0, :-1]  # (T - 1, V)
            loss = F.cross_entropy(logits.float(), inputs[0, 1:])
            (slope,) = torch.autograd.grad(loss, gates)
    finally:
        for handle in handles:
            handle.remove()
    found: list[list[float]] = slope.abs().tolist()
    return found
