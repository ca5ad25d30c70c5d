"""Changing the float type of a model's weights."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def cast_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give every float parameter and every saved float buffer the type; tied ones stay tied.

    Buffers that are not saved stay fp32, as they do when transformers loads in 16 bit: rotary frequencies in bf16
    would turn far positions by the wrong angle.
    """
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None and parameter.is_floating_point() and parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)  # .data: the Parameter stays the one that two modules share
        for name, buffer in module._buffers.items():
            saved = name not in module._non_persistent_buffers_set
            if saved and buffer is not None and buffer.is_floating_point():
                module._buffers[name] = buffer.to(dtype)
    model.config.dtype = dtype
