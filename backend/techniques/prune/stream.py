"""The residual stream of a decoder: the tables, matrices and norms that read and write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from backend.recipe.base import RecipeError
from backend.techniques.anatomy import ATTENTION, MLP, attentions, mlps, stack

KNOWN = "a decoder built like Llama, Mistral, Qwen or Gemma, with RMSNorm, and nothing else on its residual stream"
PROBE = 1e-3  # by how much a norm may differ from what an RMSNorm gives


@dataclass(frozen=True)
class Stream:
    """Everything that has the hidden size on one side."""

    embedding: nn.Embedding
    head: nn.Linear
    readers: list[nn.Linear]  # their columns are dimensions
    writers: list[nn.Linear]  # their rows are
    norms: list[nn.Module]  # over the whole stream, the last one before the head
    offset: float  # what is added to a norm's weight: 0, or 1 in Gemma

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return self.head.weight is self.embedding.weight

    @property
    def scale(self) -> float:
        """By what the embedding multiplies what it looks up."""
        return float(getattr(self.embedding, "embed_scale", 1.0))


def stream_of(model: PreTrainedModel, kind: str) -> Stream:
    """The stream of a model.

    Raises:
        RecipeError: naming the switch `kind`, for a build in which something else may lie on it.
    """
    layers = stack(model, kind)
    blocks, base = [*attentions(model, kind), *mlps(model, kind)], model.base_model
    parts: list[nn.Module] = [child for layer in layers for name, child in layer.named_children()]
    norms = [part for part in parts if _one_vector(part)] + [m for m in [getattr(base, "norm", None)] if m is not None]
    known = {*map(id, blocks), *map(id, norms)}
    strange = [part for part in parts if id(part) not in known and next(part.parameters(), None) is not None]
    beside = [name for name, part in base.named_children() if name not in ("embed_tokens", "layers", "norm")]
    strange += [part for name in beside if next((part := getattr(base, name)).parameters(), None) is not None]
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    offsets = {_offset(norm) for norm in norms}
    if strange or len(offsets) != 1 or None in offsets or not isinstance(head, nn.Linear):
        remedy = "Switch it off, or load a model of a known build."
        raise RecipeError(f"switches.{kind}", type(model).__name__, KNOWN, remedy)
    linears = [(name, one) for block in blocks for name in (*ATTENTION, *MLP) if (one := getattr(block, name, None))]
    return Stream(
        embedding=embedding,  # type: ignore[arg-type]
        head=head,
        readers=[one for name, one in linears if name not in ("o_proj", "down_proj")],
        writers=[one for name, one in linears if name in ("o_proj", "down_proj")],
        norms=norms,
        offset=offsets.pop() or 0.0,
    )


def _one_vector(module: nn.Module) -> bool:
    own = list(module.parameters())
    return len(own) == 1 and own[0].dim() == 1


@torch.no_grad()
def _offset(norm: nn.Module) -> float | None:
    """What a norm adds to its weight, by its output; None for one that is no RMSNorm."""
    weight: Any = norm.weight
    x = torch.randn(len(weight), generator=torch.Generator().manual_seed(0)).to(weight.device, torch.float32) + 1
    scale = norm(x[None].to(weight.dtype))[0].float() / (x * x.pow(2).mean().rsqrt())
    for offset in (0.0, 1.0):
        if torch.allclose(
            scale, weight.float() + offset, atol=PROBE, rtol=max(PROBE, torch.finfo(weight.dtype).eps * 4)
        ):
            return offset
    return None


def effective(norm: Any, offset: float) -> Tensor:
    """By what a norm multiplies each dimension, float32."""
    found: Tensor = norm.weight.detach().float() + offset
    return found
