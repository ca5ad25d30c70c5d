"""Which key-value heads are alike: by what their keys and values are on text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.techniques.base import Subject
from backend.techniques.calibrate import hear_inputs, text_of

TOKENS = 2048  # of the text on which heads are compared
LEAST_GAIN = 1e-6  # of two swaps that gain as much but for rounding, neither would ever end


def head_likeness(subject: Subject, blocks: list[Any]) -> list[Tensor]:
    """Likeness (H, H) of each layer's KV heads: the cosine of their keys plus that of their values, over all tokens.

    Keys are taken before positions turn them, which turn all heads of a token alike and leave the cosine as it is.
    """
    products: dict[str, Tensor] = {}

    def hear(name: str, layer: nn.Module, inputs: Tensor) -> None:
        block = blocks[int(name)]
        for side in ("k_proj", "v_proj"):
            linear = getattr(block, side)
            bias = None if linear.bias is None else linear.bias.float()
            states = F.linear(inputs, linear.weight.float(), bias).unflatten(-1, (-1, block.head_dim))  # (T, H, D)
            more = torch.einsum("thd,tgd->hg", states, states)
            products[name + side] = products[name + side] + more if name + side in products else more

    heard = {str(number): block.k_proj for number, block in enumerate(blocks)}
    hear_inputs(subject, text_of(subject, "", TOKENS), heard, hear)
    return [_cosine(products[f"{n}k_proj"]) + _cosine(products[f"{n}v_proj"]) for n in range(len(blocks))]


def group_alike(likeness: Tensor, count: int) -> list[int]:
    """Heads in an order in which neighbours form `count` groups of one size, likeness within them as high as swaps go.

    From neighbours on, the two heads whose exchange gains most change places until none gains; so it is never worse
    than neighbours (cf. Chen et al. 2024, who search groups of heads that act alike).
    """
    alike = likeness.double().cpu().clone().fill_diagonal_(0.0)
    heads = len(alike)
    group = torch.arange(heads) // (heads // count)  # (H,) of each head
    while True:
        towards = alike @ F.one_hot(group, count).double()  # (H, G) likeness to all of a group
        own = towards.gather(1, group[:, None])  # (H, 1)
        there = towards[:, group]  # (H, H) of head a to the group of head b
        gain = there - own + (there - own).T - 2 * alike
        gain[group[:, None] == group[None, :]] = 0.0
        best = int(gain.argmax())
        if not gain.flatten()[best] > LEAST_GAIN:
            return [int(head) for head in torch.argsort(group, stable=True)]
        a, b = divmod(best, heads)
        group[[a, b]] = group[[b, a]]


def _cosine(products: Tensor) -> Tensor:
    norms = products.diagonal().clamp_min(1e-12).sqrt()
    return products / norms / norms[:, None]
