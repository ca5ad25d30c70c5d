"""torch's flex_attention as transformers calls it, with a mark around each call for who listens.

The library compiles it at its first calls, and compiled code has no operator by which a profiler could tell it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.profiler import record_function
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.masking_utils import flex_attention_mask

NAME = "headway_flex_attention"


def attend(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """The library's function under a mark."""
    with record_function(NAME):
        found: tuple[Tensor, Tensor | None] = flex_attention_forward(*args, **kwargs)
    return found


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, flex_attention_mask)
