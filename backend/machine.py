"""This machine as a page knows it: the bandwidth and arithmetic that engine/machine_peak.py has measured, read back.

No torch here. Until the worker has measured the machine, nothing is known of it, and no figure is made up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.hardware import hardware
from backend.journal import state_folder


@dataclass(frozen=True)
class Machine:
    """What one device of this machine reaches with so many threads."""

    device: str
    threads: int
    reads: tuple[tuple[int, float], ...]  # (bytes of the buffer, bytes a second), smallest buffer first
    flops_per_s: Mapping[str, float]  # by number type: 'float32', 'bfloat16', 'int8'

    def bandwidth_bytes_per_s(self, size: float) -> float:
        """The most that reading so many bytes again and again can reach.

        Small buffers stay in the processor's caches and are read faster. Between two buffers that were measured the
        smaller one counts, so that no reading goes above the figure; it never grows with the size.
        """
        floor = max((held for held, _ in self.reads if held <= size), default=self.reads[0][0])
        return max(rate for held, rate in self.reads if held >= floor)

    @property
    def memory_bytes_per_s(self) -> float:
        """Bandwidth of memory itself, from the largest buffer."""
        return self.reads[-1][1]


def peak_file() -> Path:
    """Where the figures of this machine are kept."""
    return state_folder() / "machine-peak.json"


def machine_key(device: str, threads: int) -> str:
    """What a measurement belongs to: hardware, version of torch, device, threads."""
    found = hardware()
    asked = [found["hardware"], found["versions"]["torch"], device, threads]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def read_peaks() -> dict[str, Any]:
    """Every kept measurement by its key; nothing where the file is missing or damaged: it is then measured again."""
    with suppress(OSError, ValueError):
        data = json.loads(peak_file().read_text(encoding="utf-8"))
        if isinstance(data, dict):
            return data
    return {}


def keep_peaks(facts: Mapping[str, Any]) -> None:
    """Keep one measurement beside the others; the file is replaced in one step, so that nobody reads half of it."""
    key = machine_key(str(facts["device"]), int(facts["threads"]))
    new = peak_file().with_suffix(".new")
    new.write_text(json.dumps(read_peaks() | {key: dict(facts)}, indent=1), encoding="utf-8")
    new.replace(peak_file())


def this_machine(device: str = "cpu") -> Machine | None:
    """The measurement of a device with the most threads; None while there is none of this hardware and this torch."""
    known = [facts for key, facts in read_peaks().items() if _belongs(key, facts, device)]
    if not known:
        return None
    facts = max(known, key=lambda one: one["threads"])
    rates = [(int(held), float(rate)) for held, rate in facts.get("reads", ())]
    memory = max(facts["read_bytes_per_s"], facts["copy_bytes_per_s"])
    reads = tuple(sorted([*rates, (int(facts["buffer_bytes"]), float(memory))]))
    return Machine(facts["device"], facts["threads"], reads, dict(facts["flops_per_s"]))


def _belongs(key: str, facts: Any, device: str) -> bool:
    """Whether an entry was measured on this hardware, by the torch that is installed now, on the device."""
    if not isinstance(facts, dict) or not str(facts.get("device", "")).startswith(device):
        return False
    return key == machine_key(str(facts["device"]), int(facts["threads"]))


def process_file() -> Path:
    """Where the memory of a lane's process is kept."""
    return state_folder() / "process-memory.json"


def process_key() -> str:
    """What that measurement belongs to: versions of all libraries, and the hardware."""
    return hashlib.sha256(json.dumps(hardware(), sort_keys=True).encode()).hexdigest()[:16]


def kept_process_bytes() -> int | None:
    """What a lane's process holds beside its model; None while that was not measured with these libraries."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(process_file().read_text(encoding="utf-8"))
        if kept["key"] == process_key():
            return int(kept["process_bytes"])
    return None
