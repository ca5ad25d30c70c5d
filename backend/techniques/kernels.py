"""Which attention kernels ran: heard by torch's profiler while they run, never read from the config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

# Operators that compute attention, the most specific first, and what they are called here.
NAMES = {
    "_scaled_dot_product_flash_attention": "sdpa flash",
    "_scaled_dot_product_efficient_attention": "sdpa efficient",
    "_scaled_dot_product_cudnn_attention": "sdpa cuDNN",
    "_scaled_dot_product_fused_attention_overrideable": "sdpa of the device",
    "_scaled_dot_product_attention_math": "sdpa math",
    "flash_attn_3": "FlashAttention 3",
    "flash_attn": "FlashAttention",
    "flex_attention": "flex",
}
EAGER = "eager"  # products and a softmax over scores (B, H, T, S), with no fused operator around them
COMPILED = "Torch-Compiled Region"  # the event that compiled code leaves in a profile


@dataclass(frozen=True)
class Heard:
    """What the profiler heard while a call ran."""

    kernels: dict[str, int]  # attention kernels by name and how often each ran; empty where none was seen
    operators: dict[str, int]  # the operators behind them as the profiler names them
    compiled_regions: int  # how often compiled code was entered


def listen(call: Callable[[], object]) -> Heard:
    """Run a call under the profiler and name the attention kernels that it ran.

    Operators are heard on the host, where those of every device are launched, so no device is traced.
    """
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as heard:
        call()
    kernels, operators, regions = Counter[str](), Counter[str](), 0
    for event in heard.events():
        regions += event.name.startswith(COMPILED)
        if name := _kernel(event):
            kernels[name] += 1
            operators[event.name] += 1
    return Heard(dict(kernels), dict(operators), regions)


def _kernel(event: Any) -> str | None:
    """The kernel that an event stands for, or None. Of nested events that mean the same, the outermost counts."""
    name = _named(event.name)
    if name is None and event.name == "aten::softmax" and _over_scores(event):
        name = EAGER
    parent = event.cpu_parent
    while name and parent is not None:
        if _named(parent.name):
            return None  # a part of a kernel that is counted already
        parent = parent.cpu_parent
    return name


def _named(operator: str) -> str | None:
    leaf = operator.rpartition("::")[2]
    return next((name for part, name in NAMES.items() if part in leaf or part in operator), None)


def _over_scores(event: Any) -> bool:
    """Whether a softmax ran over scores (B, H, T, S); a router's or a sampler's has fewer axes."""
    shapes = event.input_shapes
    return bool(shapes) and len(shapes[0]) == 4
