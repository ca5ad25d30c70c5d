"""Folding: a factor on what enters a group of matrices, taken out again from what writes those numbers.

SmoothQuant and AWQ both rest on it: (x / s) (W s)^T = x W^T, with 1 / s put into the norm or the matrix that wrote x,
so that a step computes nothing more than before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backend.techniques.anatomy import attentions, mlps, stack
from backend.techniques.base import Subject

PROBE_TOKENS = 8
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Fold:
    """Matrices that read the same numbers, and what writes them."""

    names: tuple[str, ...]  # of the readers
    readers: tuple[nn.Linear, ...]
    writer: nn.Module  # a norm, or a linear layer

    def apply(self, scale: Tensor) -> None:
        """Divide what is written by `scale` (K,), and multiply the readers' columns by it, all in place."""
        if isinstance(self.writer, nn.Linear):
            self.writer.weight.data.div_(scale[:, None].to(self.writer.weight))
            if self.writer.bias is not None:
                self.writer.bias.data.div_(scale.to(self.writer.bias))
        else:
            _divide_norm(self.writer, scale)
        for reader in self.readers:
            reader.weight.data.mul_(scale.to(reader.weight))


@torch.no_grad()
def _divide_norm(norm: Any, scale: Tensor) -> None:
    offset = _offset(norm)
    weight = norm.weight.float()
    norm.weight.copy_((weight + offset) / scale.to(weight.device) - offset)
    if getattr(norm, "bias", None) is not None:
        norm.bias.div_(scale.to(norm.bias))


def _offset(norm: Any) -> float:
    """Gemma's norms multiply by 1 + weight, others by weight: which it is shows when what is multiplied is doubled."""
    weight = norm.weight.detach().clone()
    bias = 0.0 if getattr(norm, "bias", None) is None else norm.bias.float()
    probe = torch.randn(1, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    before = norm(probe).float() - bias
    try:
        for offset in (0.0, 1.0):
            norm.weight.copy_(2 * (weight + offset) - offset)
            doubled = norm(probe).float() - bias
            if torch.allclose(doubled, 2 * before, rtol=0.02, atol=1e-3 * float(before.abs().max())):
                return offset
    finally:
        norm.weight.copy_(weight)
    raise TypeError(f"{type(norm).__name__} does not scale what it writes by its weight")


@torch.inference_mode()
def folds(subject: Subject, kind: str) -> list[Fold]:
    """Every group of a decoder that can be folded: norm -> q, k, v; norm -> gate, up; up -> down.

    Raises:
        RecipeError: naming the switch `kind`, for a decoder of an unknown build.
    """
    model = subject.model
    names = {id(module): name for name, module in model.named_modules()}
    found: list[Fold] = []
    written = _written_by(subject, kind)
    for attention, mlp in zip(attentions(model, kind), mlps(model, kind), strict=True):
        for readers in ((attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)):
            if (norm := written.get(id(readers[0]))) is not None:
                found.append(Fold(tuple(names[id(one)] for one in readers), readers, norm))
        found.append(Fold((names[id(mlp.down_proj)],), (mlp.down_proj,), mlp.up_proj))
    return found


def _written_by(subject: Subject, kind: str) -> dict[int, nn.Module]:
    """For each matrix of a layer the norm of that layer whose output it read, seen while a token ran."""
    wrote: dict[int, tuple[nn.Module, Tensor]] = {}
    found: dict[int, nn.Module] = {}

    def remember(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            wrote[id(output)] = (module, output)  # held, so that no other tensor gets its id

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        if (known := wrote.get(id(args[0]))) is not None:
            found[id(module)] = known[0]

    handles = []
    for layer in stack(subject.model, kind):
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                handles.append(module.register_forward_pre_hook(look))
            elif "norm" in type(module).__name__.lower() and getattr(module, "weight", None) is not None:
                handles.append(module.register_forward_hook(remember))
    try:
        subject.model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=subject.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def unchanged(subject: Subject) -> Iterator[None]:
    """Whatever is folded in the block must leave what the model computes as it was.

    Raises:
        RuntimeError: when it does not, since nothing measured on such a model would be true.
    """
    before = _probe(subject)
    yield
    off = float((_probe(subject) - before).norm() / before.norm().clamp_min(1e-12))
    if not off < TOLERANCE:
        raise RuntimeError(f"folding changed the model's output by {off:.2%}")


@torch.inference_mode()
def _probe(subject: Subject) -> Tensor:
    ids = (subject.sample_ids or list(range(PROBE_TOKENS)))[:PROBE_TOKENS]
    inputs = torch.tensor([ids], device=subject.device)
    return subject.model(input_ids=inputs, use_cache=False, logits_to_keep=1).logits.float()
