"""A dense feed-forward part cut into experts, with a router that guesses which of them will matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.experts import SplitExperts
from backend.techniques.anatomy import mlps, stack
from backend.techniques.base import Effect, Subject
from backend.techniques.expertlayers import Expert, Experts, expert_layers, linear_of
from backend.techniques.experts.routed import CALIBRATION_TOKENS
from backend.techniques.registry import technique

RIDGE = 1e-2  # of the mean square of the inputs
ROUNDS = 5  # of clustering: the neurons of a dense layer fall into no sharp groups, more changes little


class Router(nn.Module):
    """Guesses the norm of what each expert would add to a token, and chooses the k largest; each counts whole."""

    def __init__(self, weight: Tensor, offset: Tensor, top_k: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)  # (experts, hidden)
        self.offset = nn.Parameter(offset, requires_grad=False)  # (experts,)
        self.top_k = top_k

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, hidden) -> guesses (N, experts), weights (N, k), chosen (N, k)."""
        guesses = nn.functional.linear(hidden, self.weight, self.offset)
        chosen = guesses.topk(self.top_k).indices
        return guesses, torch.ones_like(chosen, dtype=hidden.dtype), chosen


class RoutedPart(nn.Module):
    """Router and experts in the place of a dense feed-forward part."""

    no_config = "experts in the place of a dense part"

    def __init__(self, gate: Router, experts: Experts) -> None:
        super().__init__()
        self.gate, self.experts = gate, experts

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, hidden) -> (B, T, hidden)."""
        flat = hidden.flatten(0, -2)  # (N, hidden)
        _, weights, chosen = self.gate(flat)
        out: Tensor = self.experts(flat, chosen, weights).view_as(hidden)
        return out


@technique(SplitExperts)
class DenseIntoExperts:
    """Balanced clusters of neurons with alike gate rows become experts (Zhang et al. 2022); all of them are the dense
    part again. The router is a ridge regression on a little text: no substitute for training, and labelled so.
    """

    def apply(self, subject: Subject, switch: SplitExperts) -> None:
        """Replace every gated feed-forward part.

        Raises:
            RecipeError: for an unknown build, or when there is no text to fit the router on.
        """
        blocks = mlps(subject.model, switch.kind)
        if any(getattr(block, name).bias is not None for block in blocks for name in ("gate_proj", "down_proj")):
            raise RecipeError(f"switches.{switch.kind}", "biases", "feed-forward parts without", "Switch it off.")
        inputs = _inputs(subject, blocks, switch.kind)
        layers: Any = stack(subject.model, switch.kind)
        for number, (layer, block, entering) in enumerate(zip(layers, blocks, inputs, strict=True)):
            subject.progress(number / len(blocks), f"Cutting layer {number} into experts")
            layer.mlp = cut(block, entering, switch.experts, switch.top_k)

    def read_back(self, subject: Subject, switch: SplitExperts) -> Effect:
        """Count the experts of the live layers and those that a token goes to."""
        layers = list(expert_layers(subject.model).values())
        with torch.inference_mode():
            subject.model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=subject.device), use_cache=False)
        counts = {len(experts) for experts in layers}
        used = {experts.picked.shape[1] for experts in layers if experts.picked is not None}
        done = len(layers) == subject.facts.layers and counts == {switch.experts} and used == {switch.top_k}
        summary = f"{max(used)} of {max(counts)} experts a token, untrained" if layers else "still dense"
        return Effect(
            kind=switch.kind,
            took_effect=done,
            summary=summary,
            facts={"experts": max(counts, default=0), "top_k": max(used, default=0), "needs_training": True},
        )


@torch.inference_mode()
def _inputs(subject: Subject, blocks: list[Any], kind: str) -> list[Tensor]:
    """What enters each part on the subject's text, (T, hidden) in float32.

    Raises:
        RecipeError: when there is no text.
    """
    ids = subject.sample_ids[:CALIBRATION_TOKENS]
    if not ids:
        allowed = "some text to fit a router on"
        raise RecipeError(f"switches.{kind}", "no text", allowed, "Load the model with its tokenizer.")
    found: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, args: found.append(args[0].flatten(0, -2))) for block in blocks]
    try:
        subject.model(input_ids=torch.tensor([ids], device=subject.device), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return [entering.float() for entering in found]


@torch.inference_mode()
def cut(block: Any, entering: Tensor, count: int, top_k: int) -> RoutedPart:
    """A dense gated part as experts, with a router fitted to these inputs (T, hidden)."""
    members = clusters(block.gate_proj.weight, count)
    experts = Experts([
        Expert(
            linear_of(torch.cat([block.gate_proj.weight[rows], block.up_proj.weight[rows]])),
            linear_of(block.down_proj.weight[:, rows]),
            block.act_fn,
        )
        for rows in members
    ])  # fmt: skip
    dtype = block.gate_proj.weight.dtype
    norms = torch.stack([expert(entering.to(dtype)).float().norm(dim=1) for expert in experts], dim=1)  # (T, experts)
    weight, offset = fit(entering, norms)
    return RoutedPart(Router(weight.to(dtype), offset.to(dtype), top_k), experts)


def clusters(gates: Tensor, count: int) -> list[Tensor]:
    """Neurons in `count` groups of equal size, those with alike gate rows (ffn, hidden) together.

    k-means for the centres, then the assignment of least total distance that gives each centre equally many.
    """
    rows = nn.functional.normalize(gates.float(), dim=1).cpu().numpy()
    centres, _ = kmeans2(rows, count, iter=ROUNDS, minit="points", rng=np.random.default_rng(0))
    far = -2 * rows @ centres.T + (centres**2).sum(1)  # (ffn, count); |row|^2 is 1 for all
    size = len(rows) // count
    _, places = linear_sum_assignment(np.repeat(far, size, axis=1))  # each centre has `size` places
    owner = torch.from_numpy(places // size)
    return [(owner == number).nonzero().flatten().to(gates.device) for number in range(count)]


def fit(inputs: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression: weight (experts, hidden) and offset (experts,) of inputs (T, hidden) to wanted (T, experts)."""
    middle, level = inputs.mean(0), wanted.mean(0)
    centred = inputs - middle
    gram = centred.T @ centred
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-9)
    weight = torch.linalg.solve(gram, centred.T @ (wanted - level)).T
    return weight, level - weight @ middle
