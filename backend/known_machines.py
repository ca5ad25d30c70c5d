"""Known machines: what their makers state of bandwidth and arithmetic, for a forecast on a machine that is not here.

Datasheet figures are what no program exceeds; a good kernel reaches 70% to 90% of the bandwidth. Arithmetic is dense
(without sparsity), in bf16 or fp16 with fp32 accumulation, None where the maker states none that a large product could
be held against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GB = 1e9
TERA = 1e12
DDR5_CHANNEL_BYTES = 8  # bytes a transfer of one channel, 64 bits wide


@dataclass(frozen=True)
class KnownMachine:
    """One processor as its maker describes it."""

    name: str
    sort: Literal["CPU", "GPU", "Apple chip"]
    bandwidth_bytes_per_s: float
    flops_per_s: float | None  # bf16 or fp16, dense
    memory_bytes: float | None  # of the device itself; None where it depends on what is built in
    source: str


def _channels(count: int, transfers_per_s: float) -> float:
    """Bytes a second of so many DDR5 channels."""
    return count * DDR5_CHANNEL_BYTES * transfers_per_s


KNOWN_MACHINES: tuple[KnownMachine, ...] = (
    KnownMachine(
        "Raspberry Pi 5", "CPU", 4 * 4267e6, None, None,
        "Raspberry Pi 5 product brief: LPDDR4X-4267, 32 bits wide, so 4 bytes x 4267 MT/s",
    ),
    KnownMachine(
        "Intel Core i9-14900K", "CPU", _channels(2, 5600e6), None, None,
        "Intel product specifications: 2 channels of DDR5-5600, 89.6 GB/s",
    ),
    KnownMachine(
        "AMD Ryzen 9 7950X", "CPU", _channels(2, 5200e6), None, None,
        "AMD product specifications: 2 channels of DDR5-5200",
    ),
    KnownMachine(
        "Intel Xeon Platinum 8480+", "CPU", _channels(8, 4800e6), None, None,
        "Intel product specifications: 8 channels of DDR5-4800, one socket",
    ),
    KnownMachine(
        "AMD EPYC 9654", "CPU", _channels(12, 4800e6), None, None,
        "AMD product specifications: 12 channels of DDR5-4800, 460.8 GB/s a socket",
    ),
    KnownMachine("Apple M4", "Apple chip", 120 * GB, None, None, "Apple, MacBook Pro technical specifications, 2024"),
    KnownMachine(
        "Apple M4 Max, 40-core GPU", "Apple chip", 546 * GB, None, None,
        "Apple, MacBook Pro technical specifications, 2024",
    ),
    KnownMachine(
        "Apple M2 Ultra", "Apple chip", 800 * GB, None, None, "Apple, Mac Studio technical specifications, 2023"
    ),
    KnownMachine("NVIDIA L4", "GPU", 300 * GB, 121 * TERA, 24 * GB, "NVIDIA L4 datasheet; arithmetic without sparsity"),
    KnownMachine(
        "NVIDIA GeForce RTX 4090", "GPU", 1008 * GB, 165.2 * TERA, 24 * GB,
        "NVIDIA Ada GPU architecture whitepaper, FP16 with FP32 accumulation",
    ),
    KnownMachine("NVIDIA A100 80GB SXM", "GPU", 2039 * GB, 312 * TERA, 80 * GB, "NVIDIA A100 datasheet"),
    KnownMachine(
        "NVIDIA H100 SXM", "GPU", 3350 * GB, 989.4 * TERA, 80 * GB,
        "NVIDIA H100 datasheet and architecture whitepaper, without sparsity",
    ),
    KnownMachine("AMD Instinct MI300X", "GPU", 5300 * GB, 1307.4 * TERA, 192 * GB, "AMD Instinct MI300X datasheet"),
)  # fmt: skip
