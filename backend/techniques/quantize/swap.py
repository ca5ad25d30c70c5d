"""Replacing linear layers one by one, each tried before it is trusted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from backend.recipe.base import RecipeError
from backend.techniques.base import Subject, replace_module
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.quantize.layers import head_name, linear_like, unfold_conv1d, untie_head
from backend.techniques.quantize.release import release_memory

Build = Callable[[str, nn.Linear], nn.Module | str]  # a packed layer, or the reason why there is none

LARGEST_ERROR = 0.5  # of the output's norm; four-bit layers show about .1, a broken kernel 1 and more


def swap_linears(subject: Subject, kind: str, build: Build, largest_error: float = LARGEST_ERROR) -> None:
    """Put a packed layer in the place of every linear layer for which `build` makes one.

    Each new layer computes one token before it is put in; one that raises or is far off is left out. The reasons go
    into `subject.notes[kind]` for the receipt.

    Args:
        largest_error: of the output's norm, from which on a layer counts as broken.
    Raises:
        RecipeError: when not one layer could be replaced.
    """
    model = subject.model
    note = subject.notes.setdefault(kind, {})
    note["bytes_before"] = weight_bytes(model)
    note["conv1d_unfolded"] = unfold_conv1d(model)
    reasons: dict[str, str] = {}
    note["reasons"] = reasons
    names = list(linear_like(model))
    for index, name in enumerate(names):
        subject.progress(index / len(names), f"Quantizing {name}")
        if reason := _swap(model, name, build, largest_error):
            reasons[name] = reason
    if len(reasons) == len(names):
        why = next(iter(reasons.values()), "the model has no linear layer")
        raise RecipeError(f"switches.{kind}", "on", f"a model with layers that fit; {why}", "Switch it off.")
    release_memory(subject.device)


def _swap(model: PreTrainedModel, name: str, build: Build, largest_error: float) -> str | None:
    """Replace one layer; the reason why it stays, or None."""
    layer = model.get_submodule(name)
    if type(layer) is not nn.Linear:
        return f"{type(layer).__name__} is not a plain linear layer"
    new = build(name, layer)
    if isinstance(new, str):
        return new
    if reason := try_layer(new.eval(), layer, largest_error):
        return reason
    if name == head_name(model):
        untie_head(model)
    replace_module(model, name, new)
    return None


def try_layer(new: nn.Module, old: nn.Linear, largest_error: float = LARGEST_ERROR) -> str | None:
    """Compute one token with both layers; the reason why the new one cannot be used, or None.

    Some kernels refuse a width, in their own words and only when they run, so a rule would be a guess.
    """
    weight = old.weight
    shape = f"{weight.shape[0]} x {weight.shape[1]}"
    generator = torch.Generator().manual_seed(0)
    token = torch.randn(1, 1, weight.shape[1], generator=generator).to(weight.device, weight.dtype)  # (B, T, K)
    if fitted := getattr(new, "fitted", None):
        token = fitted(token)
    with torch.inference_mode():
        try:
            got = new(token)
        except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
            text = str(error).strip().splitlines()
            return (
                f"{weight.shape[0]} x {weight.shape[1]}: the kernel refuses it ({text[0][:120] if text else error!r})"
            )
        want = old(token)
        off = ((got - want).float().norm() / want.float().norm().clamp_min(1e-12)).item()
    if not off <= largest_error:  # also true of NaN
        return f"{shape}: the packed result is off by {off:.0%}"
    return None
