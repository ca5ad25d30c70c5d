"""What this machine reaches: bytes a second from memory and operations a second, by number type. Measured, and kept.

About two seconds once for each hardware, version of torch, device and number of threads; later runs read the figures
from the state folder. The buffer is larger than the last-level cache, so that memory is measured and not the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from backend.devices import free_bytes
from backend.machine import keep_peaks, machine_key, read_peaks

EACH_S = 0.2  # for one figure, warm-up not counted
MOST_RUNS = 50
SMALLEST, LARGEST = 64 << 20, 1 << 30  # bytes of the buffer
CACHED = tuple(size << 20 for size in (1, 4, 16, 64, 256))  # bytes that are read again and again
UNKNOWN_CACHE = 128 << 20  # bytes, where the system does not tell how large its caches are
GEMM = 1024  # rows, columns and depth of the product
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def machine_peak(device: torch.device) -> dict[str, Any]:
    """The figures for this device and the threads that torch uses now.

    Returns:
        `read_bytes_per_s` of a matrix-vector product over the buffer, `copy_bytes_per_s` read and written,
        `reads` of smaller buffers, which caches hold: [[bytes, bytes a second]],
        `flops_per_s` of a square product by type ('float32', 'bfloat16', and 'int8' where there is a kernel),
        `threads`, `device`, `buffer_bytes`, `cache_bytes` (the last level's), `spent_s`, `kept` (read from the file).
    """
    key = machine_key(str(device), torch.get_num_threads())
    kept = read_peaks()
    if key in kept:
        return kept[key] | {"kept": True}
    facts = _measure(device)
    keep_peaks(facts)
    return facts | {"kept": False}


@torch.inference_mode()
def _measure(device: torch.device) -> dict[str, Any]:
    began = time.perf_counter()
    facts = {"threads": torch.get_num_threads(), "device": str(device), **_memory(device)}
    facts["flops_per_s"] = {name: rate for name in ("float32", "bfloat16", "int8") if (rate := peak(name, device))}
    return facts | {"spent_s": time.perf_counter() - began}


def _memory(device: torch.device) -> dict[str, Any]:
    """Rates of reading and copying a buffer larger than the last-level cache, and of reading its first bytes."""
    cache = last_level_bytes()
    room = (free_bytes("cuda" if device.type == "cuda" else "cpu") or SMALLEST) // 4
    size = max(SMALLEST, min(2 * (cache or UNKNOWN_CACHE), LARGEST, room))
    columns = 4096
    matrix = torch.ones(size // (4 * columns), columns, device=device)  # (N, K) float32
    vector = torch.ones(columns, device=device)
    half, moved = matrix.shape[0] // 2, 4 * matrix.numel()
    copied = best(lambda: matrix[:half].copy_(matrix[half : 2 * half]), device)
    return {
        "buffer_bytes": moved,
        "cache_bytes": cache,
        "read_bytes_per_s": moved / best(lambda: torch.mv(matrix, vector), device),
        "reads": [[size, _read_rate(matrix, vector, size, device)] for size in CACHED if size < moved],
        "copy_bytes_per_s": 2 * 4 * half * columns / copied,
    }


def _read_rate(matrix: torch.Tensor, vector: torch.Tensor, size: int, device: torch.device) -> float:
    """Bytes a second of the product over the first `size` bytes of the matrix."""
    part = matrix[: size // (4 * matrix.shape[1])]  # (n, K)
    return size / best(lambda: torch.mv(part, vector), device, EACH_S / 2)


def peak(dtype: str, device: torch.device) -> float | None:
    """Operations a second of a product of two square matrices; None where this device has no kernel for the type."""
    kind = getattr(torch, dtype)
    left, right = (torch.ones(GEMM, GEMM, dtype=kind, device=device) for _ in range(2))
    product: Callable[[], object] = (
        (lambda: torch._int_mm(left, right)) if dtype == "int8" else (lambda: torch.mm(left, right))
    )
    try:
        return 2 * GEMM**3 / best(product, device)
    except (RuntimeError, NotImplementedError):  # how torch says that there is no kernel
        return None


def best(work: Callable[[], object], device: torch.device, budget_s: float = EACH_S) -> float:
    """Least seconds of the runs that fit into the budget, after one that warms up; three runs at least."""

    def run() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    run()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < budget_s and len(times) < MOST_RUNS):
        times.append(run())
    return min(times)


def last_level_bytes() -> int | None:
    """Size of the largest cache of the processor, as Linux tells it; None elsewhere."""
    sizes = [path.read_text().strip() for path in _CACHES.glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    found = [int(text[:-1]) * units[text[-1]] for text in sizes if text[-1:] in units and text[:-1].isdigit()]
    return max(found, default=None)
