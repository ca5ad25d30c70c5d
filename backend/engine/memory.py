"""A lane's memory, from its own process: resident bytes less what was there before the model."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torch import nn

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class MemoryMeter:
    """Resident and peak bytes of this process above its level at construction.

    Make one before the model is loaded. Where the kernel keeps no resettable peak (anything but Linux), the peak is
    the highest reading taken, which is a lower bound.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.before = self._process.memory_info().rss
        self._highest = 0

    @property
    def resident_bytes(self) -> int:
        """What is resident now, above the level before the model."""
        return max(0, self._process.memory_info().rss - self.before)

    def start_peak(self) -> None:
        """Forget the peak so far: what follows counts."""
        if _CLEAR.exists():
            _CLEAR.write_text("5")

    @property
    def peak_bytes(self) -> int:
        """The peak since `start_peak`, above the level before the model."""
        return max(0, (_high_water() or self._process.memory_info().rss) - self.before)

    def note_peak(self, uncounted: int = 0) -> int:
        """Take the peak since `start_peak` into account, less `uncounted` bytes; returns the highest of all."""
        self._highest = max(self._highest, self.peak_bytes - uncounted)
        return self._highest


def give_back() -> None:
    """Return what was freed to the system, as far as the C library can: what loading and packing took."""
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def settle() -> None:
    """Collect garbage, and let what is left be searched no more: to go through all of torch and transformers before
    every request took .15 to .3 s, as long as a short request itself.
    """
    gc.collect()
    gc.freeze()


def _high_water() -> int | None:
    """The kernel's high-water mark of resident bytes, or None where there is none."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def device_memory(device: torch.device) -> dict[str, int] | None:
    """Allocated and reserved peaks of a CUDA device, or None on other devices."""
    if device.type != "cuda":
        return None
    return {
        "allocated_peak_bytes": torch.cuda.max_memory_allocated(device),
        "reserved_peak_bytes": torch.cuda.max_memory_reserved(device),
    }


def module_parameters(model: nn.Module) -> int:
    """Number of weights, shared ones once, as the model was loaded."""
    return sum(p.numel() for p in model.parameters())
