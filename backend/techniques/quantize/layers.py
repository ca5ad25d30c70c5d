"""The layers of a model that can be quantized, and the output head among them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from backend.techniques.base import Skipped, replace_module


def is_linear(module: nn.Module) -> bool:
    """Whether it multiplies by one matrix: nn.Linear, its packed stand-ins, and GPT-2's Conv1D."""
    return isinstance(module, Conv1D) or (
        isinstance(getattr(module, "in_features", None), int) and isinstance(getattr(module, "out_features", None), int)
    )


def linear_like(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer that multiplies by one matrix, by its dotted name, quantized or not."""
    return {name: module for name, module in model.named_modules() if is_linear(module)}


def head_name(model: PreTrainedModel) -> str | None:
    """The dotted name of the output head, or None when the model has none."""
    head = model.get_output_embeddings()
    return next((name for name, module in model.named_modules() if module is head), None) if head is not None else None


def untie_head(model: PreTrainedModel) -> None:
    """Let the output head go its own way: nothing may tie the embedding to it again.

    The embedding keeps its tensor. The packers read the head's weight and write a new one, so no clone is needed and
    the float matrix, 671 MB for 262,144 entries of width 640, is never held twice.
    """
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


def unfold_conv1d(model: nn.Module) -> int:
    """Replace GPT-2's Conv1D (weight (in, out)) by the equal nn.Linear (weight (out, in)); says how many."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Conv1D)]
    for name, conv in found:
        width_in, width_out = conv.weight.shape
        # On 'meta' nothing is allocated or initialised: the tensors are handed over.
        linear = nn.Linear(width_in, width_out, bias=conv.bias is not None, device="meta")
        linear.weight = nn.Parameter(conv.weight.detach().T.contiguous(), requires_grad=False)
        if conv.bias is not None:
            linear.bias = conv.bias
        replace_module(model, name, linear.train(conv.training))
    return len(found)


def group_skipped(reasons: Iterable[tuple[str, str]]) -> list[Skipped]:
    """Fold layers that differ by their number and share a reason into one entry: 'layers.*.mlp.up_proj (18)'."""
    families: dict[tuple[str, str], list[str]] = {}
    for name, reason in reasons:
        family = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
        families.setdefault((family, reason), []).append(name)
    return [
        Skipped(names[0] if len(names) == 1 else f"{family} ({len(names)})", reason)
        for (family, reason), names in families.items()
    ]
