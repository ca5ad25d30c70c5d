"""A model of any shape with seeded random weights, made in moments: for speed and memory, never for quality."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from backend.catalog import read_config
from backend.modelref import ModelRef, bad_model

_POOL = 4_000_037  # numbers drawn; a prime, so that rows of a matrix do not repeat
_SEED = 1


def random_model(ref: ModelRef, dtype: torch.dtype, auto: Any = AutoModelForCausalLM) -> PreTrainedModel:
    """A model of the shape that `ref` names, as the class `auto` of transformers makes it.

    Matrices are tiled from one pool of normal numbers, which is as fast as copying; norms, biases and the buffers of
    rotary embeddings are as the model's own code sets them.

    Raises:
        RecipeError: for an architecture that transformers does not know, or sizes that do not go together.
    """
    config = _config(ref)
    try:
        with no_init_weights():
            model: PreTrainedModel = auto.from_config(config, dtype=dtype)
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        raise _bad_shape(ref, error) from error
    std = getattr(config, "initializer_range", None) or 0.02
    pool = torch.randn(_POOL, generator=torch.Generator().manual_seed(_SEED)).mul_(std).to(dtype)
    with torch.no_grad():
        for module in model.modules():
            _fill(model, module, pool)
    model.tie_weights()
    return model


def _config(ref: ModelRef) -> PretrainedConfig:
    fields = dict(read_config(ref))
    kind = fields.pop("model_type")
    try:
        return AutoConfig.for_model(kind, **fields)
    except (ValueError, TypeError, KeyError) as error:
        raise _bad_shape(ref, error) from error


def _bad_shape(ref: ModelRef, error: Exception) -> Exception:
    remedy = f"Correct the shape. transformers says: {str(error).splitlines()[0][:300] if str(error) else error!r}"
    return bad_model(ref.name, "a config of a causal language model that the installed transformers knows", remedy)


def _fill(model: PreTrainedModel, module: nn.Module, pool: Tensor) -> None:
    """Set the module's own parameters."""
    own = list(module.parameters(recurse=False))
    if not own:
        return
    if all(parameter.ndim < 2 for parameter in own):
        model._init_weights(module)  # norms: one or zero, as this model counts
        return
    for parameter in own:
        if parameter.ndim < 2:
            parameter.zero_()
        else:
            _tile(parameter.view(-1), pool)


def _tile(flat: Tensor, pool: Tensor) -> None:
    for start in range(0, flat.numel(), pool.numel()):
        part = flat[start : start + pool.numel()]
        part.copy_(pool[: part.numel()])
