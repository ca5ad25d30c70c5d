"""Experts as linear layers: what transformers holds as one block of three dimensions becomes layers like all others.

So whatever can be done to a linear layer can be done to one expert: pack it, cut it, leave it out. A token's experts
are called one after the other, each on its own matrix as it lies: nothing is gathered, and of the others nothing read.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from backend.techniques.base import replace_module


class Expert(nn.Module):
    """One gated feed-forward part: gate and up are one matrix (2 * ffn, hidden), gate first, as they are trained."""

    def __init__(self, gate_up: nn.Linear, down: nn.Linear, act: Any) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj, self.act_fn = gate_up, down, act

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, hidden) -> (N, hidden)."""
        gate, up = self.gate_up_proj(hidden).chunk(2, dim=-1)
        out: Tensor = self.down_proj(self.act_fn(gate) * up)
        return out


class Experts(nn.ModuleList):
    """The experts of one layer, called with the router's choice as transformers calls its own block.

    `picked` is the choice of the last call (N, k), `dropped` how many of its (token, expert) pairs were left out
    because an expert had its fill; both for whoever watches.
    """

    def __init__(self, experts: list[Expert]) -> None:
        super().__init__(experts)
        self.capacity: float | None = None  # of an even share; pairs beyond it are dropped in calls of many tokens
        self.picked: Tensor | None = None
        self.dropped = 0

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Each token's experts, weighted and summed.

        Args:
            hidden: (N, hidden).
            chosen: (N, k) numbers of experts.
            weights: (N, k) of the router.
        """
        self.picked, self.dropped = chosen, 0
        if len(hidden) == 1:
            return self._one(hidden, chosen.tolist()[0], weights.tolist()[0])
        return self._many(hidden, chosen, weights)

    def _one(self, hidden: Tensor, chosen: list[int], weights: list[float]) -> Tensor:
        experts = tuple(self._modules.values())  # several times as fast as one item of a ModuleList
        total: Tensor = experts[chosen[0]](hidden).mul_(weights[0])
        for number, weight in zip(chosen[1:], weights[1:], strict=True):
            total.add_(experts[number](hidden), alpha=weight)
        return total

    def _many(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Sorted by expert, so that each expert that is hit multiplies once, all of its tokens together."""
        top_k = chosen.shape[1]
        order = chosen.flatten().argsort(stable=True)  # (N * k,)
        entering = hidden[order // top_k]  # (N * k, hidden), each expert's tokens together
        counts = torch.bincount(chosen.flatten(), minlength=len(self)).tolist()
        most = self.room(len(hidden), top_k)
        self.dropped = sum(max(0, count - most) for count in counts)
        left = torch.zeros_like(entering) if self.dropped else torch.empty_like(entering)
        start = 0
        for expert, count in zip(self, counts, strict=True):
            kept = slice(start, start + min(count, most))  # the first to come stay
            start += count
            if kept.stop > kept.start:
                left[kept] = expert(entering[kept])
        back = torch.empty_like(left)
        back[order] = left  # (N * k, hidden), as they came
        shared = back.view(*chosen.shape, -1) * weights[..., None]  # (N, k, hidden)
        return shared.sum(1).to(hidden.dtype)

    def room(self, tokens: int, top_k: int) -> int:
        """Tokens that one expert takes of a call: ceil(capacity * tokens * k / experts), or all of them."""
        if self.capacity is None:
            return tokens
        return math.ceil(self.capacity * tokens * top_k / len(self))


def unstack(model: nn.Module) -> int:
    """Replace every block of stacked experts that is known by `Experts`, whose weights are views of the block's.

    Returns:
        How many layers were replaced; blocks of another build (biased, transposed, not gated) stay as they are.
    """
    found = [name for name, module in model.named_modules() if is_stacked(module)]
    for name in found:
        replace_module(model, name, _unstacked(model.get_submodule(name)))
    return len(found)


def is_stacked(module: Any) -> bool:
    """Whether a module is a block of gated experts as Mixtral, Qwen-MoE and OLMoE have it."""
    stacks = [getattr(module, name, None) for name in ("gate_up_proj", "down_proj")]
    if not all(isinstance(stack, nn.Parameter) and stack.dim() == 3 for stack in stacks):
        return False
    plain = not (getattr(module, "is_transposed", True) or getattr(module, "has_bias", True))
    return plain and bool(getattr(module, "has_gate", False)) and bool(getattr(module, "is_concatenated", False))


def expert_layers(model: nn.Module) -> dict[str, Experts]:
    """The experts of every layer by dotted name, in the order of the layers."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Experts)}


def _unstacked(block: Any) -> Experts:
    gate_up, down = block.gate_up_proj, block.down_proj
    return Experts([
        Expert(linear_of(gate_up[number]), linear_of(down[number]), block.act_fn) for number in range(len(gate_up))
    ])  # fmt: skip


def linear_of(weight: Tensor) -> nn.Linear:
    """A linear layer without bias that holds this weight (out, in)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return layer.eval()


def stacked_names(model: nn.Module) -> dict[str, list[str]]:
    """For transformers' own files: the name of each stack, and the names of the tensors that make it, in order."""
    stacks: dict[str, list[str]] = {}
    for name, experts in expert_layers(model).items():
        for leaf in ("gate_up_proj", "down_proj"):
            stacks[f"{name}.{leaf}"] = [f"{name}.{number}.{leaf}.weight" for number in range(len(experts))]
    return stacks
