"""Backends of torch's scaled_dot_product_attention by name: each is an attention function of its own for transformers.

The name stands in the model's config, so that the choice holds in every call of the model, whoever makes it, and is
copied, read and set back like the library's own names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

Forward = Callable[..., tuple[Tensor, None]]

FLASH, EFFICIENT = SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION
CUDNN, MATH = SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH
ORDERS = {  # a backend first, then those to which it leaves what it cannot do; math can do every call
    "sdpa_math": (MATH,),
    "sdpa_efficient": (EFFICIENT, MATH),
    "sdpa_flash": (FLASH, EFFICIENT, MATH),
    "sdpa_cudnn": (CUDNN, FLASH, EFFICIENT, MATH),
}
REGISTERED = {name: name for name in ORDERS} | {
    "sdpa_flash": "sdpa_tiled"  # transformers takes any name with 'flash' in it for a package's FlashAttention
}
TOGGLES = {  # whether torch may take a backend, and what says so; for every device, whatever the module is called
    FLASH: (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    EFFICIENT: (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    CUDNN: (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
}


def preferring(order: tuple[SDPBackend, ...]) -> Forward:
    """The library's sdpa by the first of these backends that can do the call.

    Outside of compiled code, which knows `sdpa_kernel` only, the others are forbidden one by one where torch's own
    order is the same: a tenth of the time, which a small model's step would show.
    """
    backends, rivals = list(order), [TOGGLES[one] for one in TOGGLES if one not in order]

    def attend(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        if order[0] == CUDNN or torch.compiler.is_compiling():
            with sdpa_kernel(backends, set_priority=True):
                return _attend(*args, **kwargs)
        were = [allowed() for allowed, _ in rivals]
        for _, allow in rivals:
            allow(False)
        try:
            return _attend(*args, **kwargs)
        finally:
            for (_, allow), before in zip(rivals, were, strict=True):
                allow(before)

    return attend


_attend: Forward = sdpa_attention_forward
for name, order in ORDERS.items():
    AttentionInterface.register(REGISTERED[name], preferring(order))
    AttentionMaskInterface.register(REGISTERED[name], sdpa_mask)
